"""The break-glass token: what the master signs, and how a machine checks it. Time is an argument.

The machine sends a challenge: a nonce, its boot id and an end on ``CLOCK_BOOTTIME``. The master signs exactly that with
its own key, whose public half every minion has. So a token opens one machine, in one boot, until that end. Nobody can
set this clock, and the wall clock is not used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from saltext.immutable.guard import rsa

MAX_TTL = 4 * 3600.0
"""Seconds that a token may last. Who needs longer rebuilds the fleet instead."""
_PURPOSE = b"saltext-immutable break-glass\n"
"""Prefix of what is signed: no other signature of the master's key is valid as a token."""


class InvalidToken(Exception):
    """A token that this machine does not accept; the text says why."""


@dataclass(frozen=True)
class Grant:
    """The content of a token."""

    machine: str
    """Its minion id."""
    nonce: str
    boot_id: str
    until: float
    """Seconds of the machine's ``CLOCK_BOOTTIME``."""
    reason: str
    who: str


def sign(grant: Grant, private_pem: bytes, passphrase: str | None = None) -> str:
    """Return the token: the grant in JSON, a dot, its signature (RSA-PSS, SHA-256), both in URL-safe base64.

    Raises ``InvalidToken`` if the key is not an RSA key.
    """
    payload = json.dumps(asdict(grant), sort_keys=True).encode()
    try:
        signature = rsa.sign(_PURPOSE + payload, private_pem, passphrase)
    except rsa.InvalidKey as err:
        raise InvalidToken("the master's key is not an RSA key") from err
    return f"{rsa.encode(payload)}.{rsa.encode(signature)}"


def verify(token: str, public_pem: bytes) -> Grant:
    """Return the grant in a token; raise ``InvalidToken`` unless the owner of this public key signed it."""
    try:
        payload, signature = (rsa.decode(part) for part in token.split("."))
        if not rsa.is_signed(_PURPOSE + payload, signature, public_pem):
            raise InvalidToken("the master of this machine did not sign the token")
        found = json.loads(payload)
        return Grant(**{field.name: found[field.name] for field in fields(Grant)})
    except rsa.InvalidKey as err:
        raise InvalidToken("the master's key is not an RSA key") from err
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise InvalidToken("this is not a token") from err


def mismatch(grant: Grant, machine: str, boot_id: str, now: float) -> str | None:
    """Return why a grant does not open this machine at ``now`` (seconds of ``CLOCK_BOOTTIME``); None if it does."""
    if grant.machine != machine:
        return f"the token is for {grant.machine}"
    if grant.boot_id != boot_id:
        return "the machine has rebooted since the token was made"
    if not now < grant.until <= now + MAX_TTL:
        return "the token has expired"
    return None
