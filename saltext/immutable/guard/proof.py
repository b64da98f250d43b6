"""Proof that a machine gave an answer: a signature with its minion key. The machine signs, the master verifies.

Any minion can send any event, answers of other minions included. So the master sends a nonce with what it asks, and
believes only an answer that is signed with the key that it accepted for this minion id. What is signed holds the nonce,
the id, what was asked and the answer.
"""

from __future__ import annotations

import json
import secrets

from saltext.immutable.guard import rsa

_PURPOSE = b"saltext-immutable answer\n"
"""Prefix of what is signed: no other signature of a minion's key is valid as a proof."""


def new_nonce() -> str:
    """Return a nonce that was never used before."""
    return secrets.token_hex(16)


def sign(nonce: str, minion_id: str, asked: str, answers: str, private_pem: bytes) -> str:
    """Return the proof that ``minion_id`` answered ``answers`` to ``asked`` (both JSON)."""
    return rsa.encode(rsa.sign(_signed(nonce, minion_id, asked, answers), private_pem))


def holds(proof: object, nonce: str, minion_id: str, asked: str, answers: object, public_pem: bytes) -> bool:
    """Tell whether a proof is that of this answer to this question, by the owner of this public key."""
    if not isinstance(proof, str) or not isinstance(answers, str):
        return False
    try:
        return rsa.is_signed(_signed(nonce, minion_id, asked, answers), rsa.decode(proof), public_pem)
    except ValueError:
        return False


def _signed(nonce: str, minion_id: str, asked: str, answers: str) -> bytes:
    return _PURPOSE + json.dumps([nonce, minion_id, asked, answers]).encode()
