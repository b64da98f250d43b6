"""Signatures with the keys of Salt's master and minions: RSA-PSS with SHA-256."""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key


class InvalidKey(ValueError):
    """A key that is not an RSA key in PEM."""


def sign(data: bytes, private_pem: bytes, passphrase: str | None = None) -> bytes:
    """Return the signature of ``data``; raise ``InvalidKey`` or ``ValueError`` if the key cannot be used.

    The key is the caller's own, and whether its numbers are primes is not checked: that takes 50 ms.
    """
    password = passphrase.encode() if passphrase else None
    key = load_pem_private_key(private_pem, password, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise InvalidKey("it is not an RSA key")
    return key.sign(data, _padding(), hashes.SHA256())


def is_signed(data: bytes, signature: bytes, public_pem: bytes) -> bool:
    """Tell whether the owner of a public key signed ``data``; raise ``ValueError`` if the key cannot be used."""
    key = load_pem_public_key(public_pem)
    if not isinstance(key, rsa.RSAPublicKey):
        raise InvalidKey("it is not an RSA key")
    try:
        key.verify(signature, data, _padding(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def encode(data: bytes) -> str:
    """Return URL-safe base64 without ``=``, which Salt's command line would read as a keyword argument."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Return the bytes of `encode`; raise ``ValueError`` for any other text."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _padding() -> padding.PSS:
    return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
