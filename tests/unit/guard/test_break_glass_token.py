"""What opens a sealed machine: one token for one machine, one boot, up to one moment."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from saltext.immutable.guard.break_glass_token import MAX_TTL, Grant, InvalidToken, mismatch, sign, verify

GRANT = Grant("web-1", "n0", "boot-a", until=1000.0, reason="the disk is full", who="root")


def pair() -> tuple[bytes, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()), public


PRIVATE, PUBLIC = pair()
TOKEN = sign(GRANT, PRIVATE)


def test_what_was_signed_is_what_is_granted():
    assert verify(TOKEN, PUBLIC) == GRANT


def test_a_token_is_one_word_of_a_command_line():
    assert not set(TOKEN) & set("=+/ '\"")


def test_a_key_with_a_passphrase_signs_too():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kept = BestAvailableEncryption(b"secret")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, kept)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert verify(sign(GRANT, private, "secret"), public) == GRANT


def forged(**changed: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({**GRANT.__dict__, **changed}, sort_keys=True).encode()).decode()
    return f"{payload}.{TOKEN.split('.')[1]}"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="nothing"),
        pytest.param("a.b.c", id="too many parts"),
        pytest.param("%%.%%", id="no base64"),
        pytest.param(TOKEN.split(".")[0], id="no signature"),
        pytest.param(forged(until=9e9), id="a later end"),
        pytest.param(forged(machine="web-2"), id="another machine"),
        pytest.param(sign(GRANT, pair()[0]), id="another master"),
        pytest.param(TOKEN[:-8] + "AAAAAAAA", id="another signature"),
        pytest.param(None, id="no text"),
    ],
)
def test_what_the_master_did_not_sign_opens_nothing(token):
    with pytest.raises(InvalidToken):
        verify(token, PUBLIC)


@pytest.mark.parametrize(
    ("grant", "why"),
    [
        pytest.param(GRANT, None, id="in time"),
        pytest.param(replace(GRANT, machine="web-2"), "is for web-2", id="another machine"),
        pytest.param(replace(GRANT, boot_id="boot-b"), "rebooted", id="another boot"),
        pytest.param(replace(GRANT, until=900.0), "has expired", id="at its end"),
        pytest.param(replace(GRANT, until=899.0), "has expired", id="after its end"),
        pytest.param(replace(GRANT, until=900.0 + MAX_TTL + 1), "has expired", id="longer than allowed"),
        pytest.param(replace(GRANT, until=float("nan")), "has expired", id="no number"),
    ],
)
def test_a_grant_opens_one_machine_in_one_boot_for_a_time(grant, why):
    found = mismatch(grant, "web-1", "boot-a", 900.0)
    assert found is None if why is None else why in str(found)
