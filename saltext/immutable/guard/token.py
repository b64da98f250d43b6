"""Breaking the glass: what the master signs, and when a machine takes it. Time is an argument.

The machine names a nonce, its boot and how far its clock of the boot may go; the master signs exactly that. So a
token opens one machine in one boot up to one moment of a clock that nobody can set, and the wall clock counts for
nothing. The key is the master's own, whose public half every minion has.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, fields

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

LONGEST = 4 * 3600.0
"""Seconds: who needs longer rebuilds instead."""
_PURPOSE = b"saltext-immutable break-glass\n"
"""Signed with it, so that nothing else that the master signs is ever a token."""


class Refused(Exception):
    """A token that opens nothing, and why."""


@dataclass(frozen=True)
class Grant:
    """What a token says."""

    machine: str
    """Its minion id."""
    nonce: str
    boot_id: str
    until: float
    """Seconds of the machine's ``CLOCK_BOOTTIME``."""
    reason: str
    who: str


def sign(grant: Grant, private_pem: bytes, passphrase: str | None = None) -> str:
    """Return the token: what is granted, a dot, the signature (RSA-PSS, SHA-256), in base64 for URLs."""
    key = load_pem_private_key(private_pem, passphrase.encode() if passphrase else None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Refused("the master's key is no RSA key")
    said = json.dumps(asdict(grant), sort_keys=True).encode()
    return f"{_encode(said)}.{_encode(key.sign(_PURPOSE + said, _padding(), hashes.SHA256()))}"


def verify(token: str, public_pem: bytes) -> Grant:
    """Return what the master granted; raise ``Refused`` for what its key did not sign."""
    try:
        said, signature = (_decode(part) for part in token.split("."))
        key = load_pem_public_key(public_pem)
        if not isinstance(key, rsa.RSAPublicKey):
            raise Refused("the master's key is no RSA key")
        key.verify(signature, _PURPOSE + said, _padding(), hashes.SHA256())
        found = json.loads(said)
        return Grant(**{field.name: found[field.name] for field in fields(Grant)})
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise Refused("this is no token") from err
    except InvalidSignature as err:
        raise Refused("the master of this machine did not sign the token") from err


def opens(grant: Grant, machine: str, boot_id: str, now: float) -> str | None:
    """Return why a grant does not open this machine at ``now`` (``CLOCK_BOOTTIME``), or None when it does."""
    if grant.machine != machine:
        return f"the token is for {grant.machine}"
    if grant.boot_id != boot_id:
        return "the machine has rebooted since the token was made"
    if not now < grant.until <= now + LONGEST:
        return "the token's time is over"
    return None


def _padding() -> padding.PSS:
    return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


def _encode(data: bytes) -> str:
    """No ``=``: Salt's command line would take it for a keyword."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
