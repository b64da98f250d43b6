"""Signatures that count: by our own key, which is made once, and by trusted keys of the config."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.images import sign
from saltext.immutable.spec.model import Settings

SAID = {"image": "web@3f2a9c1d04be", "of": ["layers"]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "ours")


def other(tmp_path: Path) -> Settings:
    """Another master's settings, whose key is made."""
    found = Settings(root=tmp_path / "theirs")
    sign.key(found)
    sign.write_public(found)
    return found


def test_a_key_is_made_on_first_use_readable_for_its_owner_only(settings):
    one, again = sign.key(settings), sign.key(settings)
    assert one.private_bytes_raw() == again.private_bytes_raw()
    assert stat.S_IMODE((settings.root / "signing.pem").stat().st_mode) == 0o600
    assert [file.name for file in settings.root.iterdir()] == ["signing.pem"]


def test_of_two_processes_that_make_a_key_one_counts(settings):
    made = []
    threads = [threading.Thread(target=lambda: made.append(sign.key(settings).private_bytes_raw())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len(set(made)) == 1


def test_verification_makes_no_key(settings):
    assert sign.trusted(settings) == []
    assert not settings.root.exists()


def test_our_own_signature_is_valid(settings):
    envelope = sign.sign(SAID, sign.key(settings))
    assert sign.verify(json.loads(json.dumps(envelope)), sign.trusted(settings)) == SAID


def test_other_tools_can_verify_the_envelope(settings):
    """The encoding that is signed, written down from the DSSE specification."""
    envelope = sign.sign(SAID, sign.key(settings))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    sign.write_public(settings)
    public = serialization.load_pem_public_key(sign.public_file(settings).read_bytes())
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)


def test_another_key_counts_once_it_is_trusted(settings, tmp_path):
    theirs = other(tmp_path)
    envelope = sign.sign(SAID, sign.key(theirs))
    with pytest.raises(CommandExecutionError, match="is not trusted by this master; .* immutable:trusted_keys"):
        sign.verify(envelope, sign.trusted(settings))
    trusting = Settings(root=settings.root, trusted_keys=(sign.public_file(theirs),))
    assert sign.verify(envelope, sign.trusted(trusting)) == SAID
    sign.key(settings)
    assert len(sign.trusted(trusting)) == 2


def test_any_flipped_bit_of_an_envelope_is_refused(settings):
    envelope = sign.sign(SAID, sign.key(settings))
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    for place, data in (("payload", payload), ("sig", signature)):
        for bit in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            text = base64.b64encode(bytes(flipped)).decode()
            changed = {**envelope, "payload": text} if place == "payload" else with_signature(envelope, sig=text)
            with pytest.raises(CommandExecutionError, match="the signature is invalid"):
                sign.verify(changed, sign.trusted(settings))


def with_signature(envelope, **changes):
    return {**envelope, "signatures": [{**envelope["signatures"][0], **changes}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda found: {**found, "payloadType": "text/plain"}, "is invalid", id="another type"),
        pytest.param(lambda found: {**found, "payload": "%"}, "damaged", id="no base64"),
        pytest.param(lambda found: {**found, "signatures": []}, "key .none. is not trusted", id="signed by nobody"),
        pytest.param(lambda found: {**found, "signatures": 5}, "damaged", id="no list"),
        pytest.param(lambda found: {"payload": found["payload"]}, "damaged", id="half of it"),
        pytest.param(
            lambda found: with_signature(found, keyid="0" * 64),
            "key .000000000000. is not trusted",
            id="another key's name",
        ),
    ],
)
def test_invalid_envelopes_are_refused(settings, change, said):
    envelope = sign.sign(SAID, sign.key(settings))
    with pytest.raises(CommandExecutionError, match=said):
        sign.verify(change(envelope), sign.trusted(settings))


def test_another_key_with_our_key_id_is_refused(settings, tmp_path):
    ours, forged = sign.sign(SAID, sign.key(settings)), sign.sign(SAID, sign.key(other(tmp_path)))
    forged = with_signature(forged, keyid=ours["signatures"][0]["keyid"])
    with pytest.raises(CommandExecutionError, match="is invalid"):
        sign.verify(forged, sign.trusted(settings))


def test_a_key_of_the_config_is_used(settings, tmp_path):
    theirs = other(tmp_path)
    given = Settings(root=settings.root, signing_key=sign.key_file(theirs))
    assert sign.trusted(given) == sign.trusted(theirs)
    assert not settings.root.exists()


def rsa_key(file: Path) -> None:
    made = rsa.generate_private_key(65537, 1024)
    plain = serialization.NoEncryption()
    file.write_bytes(made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    file.chmod(0o600)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda file: file.unlink(), "signing_key: .* cannot be read", id="gone"),
        pytest.param(
            lambda file: file.chmod(0o644), "must be readable for its owner only.* chmod 600", id="for all to read"
        ),
        pytest.param(lambda file: os.truncate(file, 40), "no private key in PEM", id="truncated"),
        pytest.param(rsa_key, "no Ed25519 key; make one by openssl genpkey", id="of another kind"),
    ],
)
def test_an_unusable_key_is_named_with_what_to_do(settings, tmp_path, spoil, said):
    file = sign.key_file(other(tmp_path))
    spoil(file)
    with pytest.raises(SaltInvocationError, match=said):
        sign.key(Settings(root=settings.root, signing_key=file))


@pytest.mark.parametrize(
    ("text", "said"), [(None, "cannot be read"), ("nonsense", "no public key in PEM")], ids=["gone", "nonsense"]
)
def test_an_unusable_trusted_key_is_named(tmp_path, text, said):
    file = tmp_path / "their.pem"
    if text:
        file.write_text(text)
    with pytest.raises(SaltInvocationError, match=f"immutable:trusted_keys: {file} .*{said}|{said}"):
        sign.trusted(Settings(root=tmp_path, trusted_keys=(file,)))
