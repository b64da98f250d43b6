"""Sign images and verify signatures: Ed25519 keys, statements in DSSE envelopes, which other tools can read too."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import write
from saltext.immutable.images.manifest import canonical
from saltext.immutable.spec.model import Settings

_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"


class Invalid(CommandExecutionError):  # type: ignore[misc]
    """A signature is not one of the trusted key that it names, or cannot be read."""


def key_file(settings: Settings) -> Path:
    """Return the path of the private key."""
    return settings.signing_key or settings.root / "signing.pem"


def public_file(settings: Settings) -> Path:
    """Return the path of its public half, which other masters may trust."""
    return Path(f"{key_file(settings)}.pub")


def key(settings: Settings) -> Ed25519PrivateKey:
    """Return the private key. It is made on first use, unless the config names one.

    Raises SaltInvocationError where it cannot be read, is readable for others, or is no Ed25519 key.
    """
    file = key_file(settings)
    if not file.exists() and settings.signing_key is None:
        _make(file)
    return _private(file)


def _make(file: Path) -> None:
    """Make the key file. If two processes do so at once, the key of the first one counts."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    text = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        write(new, text.decode(), mode=0o600)
        os.link(new, file)
    except FileExistsError:
        pass
    finally:
        new.unlink(missing_ok=True)


def _private(file: Path) -> Ed25519PrivateKey:
    try:
        info = file.stat()
        text = file.read_bytes()
    except OSError as err:
        raise SaltInvocationError(
            f"config immutable:signing_key: {file} cannot be read: {err.strerror}; let the master's user read it"
        ) from err
    if stat.S_IMODE(info.st_mode) & 0o077 or info.st_uid not in (0, os.geteuid()):
        raise SaltInvocationError(
            f"config immutable:signing_key: {file} must be readable for its owner only, the master's user or root; "
            f"chown it, and chmod 600 {file}"
        )
    try:
        found = serialization.load_pem_private_key(text, password=None)
    except (TypeError, ValueError) as err:
        raise SaltInvocationError(
            f"config immutable:signing_key: {file} is no private key in PEM without a password: {err}; make one by "
            "openssl genpkey -algorithm ed25519"
        ) from err
    if not isinstance(found, Ed25519PrivateKey):
        raise SaltInvocationError(
            f"config immutable:signing_key: {file} is no Ed25519 key; make one by openssl genpkey -algorithm ed25519"
        )
    return found


def write_public(settings: Settings) -> None:
    """Write the public half of the key that signs to `public_file`."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    text = key(settings).public_key().public_bytes(serialization.Encoding.PEM, kind)
    file = public_file(settings)
    if not file.exists() or file.read_bytes() != text:
        write(file, text.decode())


def trusted(settings: Settings) -> list[str]:
    """Return the public keys (base64) whose signatures count: our own, if there is one, and ``trusted_keys``.

    Raises SaltInvocationError for a key file that cannot be used.
    """
    own = [key(settings).public_key()] if settings.signing_key or key_file(settings).exists() else []
    return list(dict.fromkeys(map(_text, [*own, *map(_public, settings.trusted_keys)])))


def _public(file: Path) -> Ed25519PublicKey:
    try:
        found = serialization.load_pem_public_key(file.read_bytes())
    except OSError as err:
        raise SaltInvocationError(
            f"config immutable:trusted_keys: {file} cannot be read: {err.strerror}; correct the path, or remove it"
        ) from err
    except ValueError as err:
        raise SaltInvocationError(
            f"config immutable:trusted_keys: {file} is no public key in PEM: {err}; make one by openssl pkey -pubout"
        ) from err
    if not isinstance(found, Ed25519PublicKey):
        raise SaltInvocationError(f"config immutable:trusted_keys: {file} is no Ed25519 key; remove it from the list")
    return found


def _text(public: Ed25519PublicKey) -> str:
    return base64.b64encode(public.public_bytes_raw()).decode()


def key_id(public: str) -> str:
    """Return the id of a public key (base64): its hash."""
    return hashlib.sha256(base64.b64decode(public)).hexdigest()


def sign(statement: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Return a statement as a signed envelope."""
    payload = canonical(statement).encode()
    signature = {
        "keyid": key_id(_text(private.public_key())),
        "sig": base64.b64encode(private.sign(_pre_authentication_encoding(_TYPE, payload))).decode(),
    }
    return {"payloadType": _TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]}


def verify(envelope: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return the statement in an envelope. Raise CommandExecutionError unless one of ``keys`` (base64) signed it."""
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        message = _pre_authentication_encoding(envelope["payloadType"], payload)
        signed = {each["keyid"]: base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"]}
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise Invalid(f"the signature is damaged ({type(err).__name__}: {err}); bake the recipe again") from err
    known = {key_id(public): public for public in keys}
    if not set(signed) & set(known):
        names = ", ".join(name[:12] for name in signed) or "none"
        raise CommandExecutionError(
            f"the signing key ({names}) is not trusted by this master; "
            "if it should be, add its public half to immutable:trusted_keys in the master config"
        )
    if not any(_is_valid(known[name], signature, message) for name, signature in signed.items() if name in known):
        raise Invalid("the signature is invalid: it is not for this content; bake the recipe again")
    return dict(json.loads(payload))


def _is_valid(public: str, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public)).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _pre_authentication_encoding(kind: str, payload: bytes) -> bytes:
    """Return the bytes that are signed, see the DSSE protocol."""
    return b" ".join([b"DSSEv1", b"%d" % len(kind.encode()), kind.encode(), b"%d" % len(payload), payload])
