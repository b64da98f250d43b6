"""States that Salt gives a random salt have the same one in each bake."""

from __future__ import annotations

import base64
import hmac
import os

import pytest

from saltext.immutable.builder.states.handlers import salted_hashes
from saltext.immutable.builder.states.handlers.call import Call
from saltext.immutable.builder.states.trace import Trace

KEY = b"ssh-ed25519 AAAA\n"


def hashed(name: bytes) -> bytes:
    """Return the line that ssh-keygen -H makes of a host."""
    salt = os.urandom(20)
    parts = (base64.b64encode(part) for part in (salt, hmac.digest(salt, name, "sha1")))
    return b"|1|" + b"|".join(parts) + b" " + KEY


@pytest.fixture
def call(tmp_path):
    """Return what makes a call of a state; ``run`` does what Salt would."""
    trace = Trace(str(tmp_path / "trace"), "master", b"key")
    salt = {
        "shadow.info": lambda name: {"passwd": {"ada": "!", "bob": "$6$abc$hash"}.get(name, "")},
        "shadow.gen_password": lambda password, crypt_salt: f"$6${crypt_salt}${password}",
        "user.info": lambda name: {"home": str(tmp_path)} if name == "ada" else {},
    }

    def made(run, **arguments):
        return Call("x.present", arguments, salt, run, trace, ())

    return made


@pytest.mark.parametrize(
    ("name", "given", "salted"),
    [
        pytest.param("ada", {"password": "x", "hash_password": True}, True, id="no password yet"),
        pytest.param("new", {"password": "x", "hash_password": True}, True, id="a new user"),
        pytest.param("bob", {"password": "x", "hash_password": True}, False, id="one whose salt Salt takes up"),
        pytest.param("ada", {"password": "$6$a$b", "hash_password": False}, False, id="a hash"),
        pytest.param("ada", {"password": None, "hash_password": True}, False, id="no password"),
    ],
)
def test_a_password_is_hashed_with_the_same_salt_each_time(call, name, given, salted):
    made = [salted_hashes.user(call(lambda **more: more, name=name, **given)) for _ in range(2)]
    assert made[0] == made[1]
    assert bool(made[0]) == salted
    if salted:
        assert made[0]["hash_password"] is False
        other = salted_hashes.user(call(lambda **more: more, name="other", **given))
        assert other["password"] != made[0]["password"], "users with the same password have other salts"


def test_a_known_host_is_hashed_with_the_same_salt_each_time(call, tmp_path):
    file = tmp_path / ".ssh/known_hosts"
    file.parent.mkdir()
    others = [b"# a comment\n", b"plain.example " + KEY, hashed(b"other.example"), b"|1|odd|line|x " + KEY]

    def present():
        file.write_bytes(b"".join([*others, hashed(b"git.example")]))
        return {"result": True}

    texts = []
    for _ in range(2):
        salted_hashes.known_host(call(present, name="git.example", user="ada", hash_known_hosts=True))
        texts.append(file.read_bytes())
    assert texts[0] == texts[1] and texts[0].startswith(b"".join(others))
    _, _, salt, digest = texts[0].splitlines()[-1].split(b" ")[0].split(b"|")
    assert base64.b64decode(digest) == hmac.digest(base64.b64decode(salt), b"git.example", "sha1"), "ssh finds it"
    assert texts[0].endswith(b" " + KEY)


@pytest.mark.parametrize("damage", ["absent", "link", "failed", "nobody"])
def test_a_file_of_known_hosts_that_is_not_plain_is_left_as_it_is(call, tmp_path, damage):
    file, text = tmp_path / ".ssh/known_hosts", hashed(b"git.example")
    file.parent.mkdir()
    (tmp_path / "elsewhere").write_bytes(text)
    if damage == "link":
        file.symlink_to(tmp_path / "elsewhere")
    elif damage != "absent":
        file.write_bytes(text)
    user = "eve" if damage == "nobody" else "ada"
    run = call(lambda: {"result": damage != "failed"}, name="git.example", user=user, hash_known_hosts=True)
    assert salted_hashes.known_host(run) == {"result": damage != "failed"}
    assert damage == "absent" or file.read_bytes() == text
