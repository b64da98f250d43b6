"""Secrets of the pillar in a layer: which values are marked, where they are found, and that no message shows one."""

from __future__ import annotations

import base64
import json
import os
import textwrap
from subprocess import CompletedProcess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.finish import secrets
from saltext.immutable.builder.finish.search import search
from saltext.immutable.builder.finish.secrets import Secret

PILLAR = {
    "db": {"user": "shop", "password": "correct-horse", "port": 5432},
    "tls": {"a.example": {"key": "key-of-a", "cert": "cert-of-a"}, "b.example": {"key": "key-of-b"}},
    "tokens": ["token-one", {"deep": "token-two"}],
    "pin": "12345",
    "stored": "sdb://vault/app",
}
KEY = (
    "-----BEGIN PRIVATE KEY-----\n"
    + "\n".join(["Q" * 63 + "x", "R" * 63 + "y", "short"])
    + "\n-----END PRIVATE KEY-----\n"
)
DB = Secret("db:password", "correct-horse")


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        pytest.param(["db:password"], ["db:password"], id="one value"),
        pytest.param(["tls:*:key"], ["tls:a.example:key", "tls:b.example:key"], id="a glob is one element"),
        pytest.param(["*:password"], ["db:password"], id="a glob does not match two elements"),
        pytest.param(["tokens"], ["tokens:0", "tokens:1:deep"], id="all that is below"),
        pytest.param(["tokens:0"], ["tokens:0"], id="an element of a list"),
        pytest.param(["db"], ["db:password"], id="short words and numbers are left out"),
        pytest.param(["pin", "nowhere:x"], [], id="nothing"),
        pytest.param(["stored"], [], id="the URI of a secret is none"),
        pytest.param(["db:*", "db:password"], ["db:password"], id="marked by two patterns, once in the result"),
    ],
)
def test_a_pattern_selects(patterns, paths):
    assert [secret.pillar for secret in secrets.select(PILLAR, patterns)] == paths


def warnings(tree, values) -> list[str]:
    return secrets.warnings(search(tree, secrets.patterns(values)), values)


@pytest.fixture
def warn(tmp_path):
    """Return the warnings about a layer with these files."""

    def warn(files, *values) -> list[str]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return warnings(tmp_path, values or [DB])

    return warn


def test_a_warning_names_file_and_pillar_path_and_what_to_do(warn):
    assert warn({"etc/app.conf": "password = correct-horse\n", "etc/other": "correct-hors"}) == [
        "/etc/app.conf holds the value of pillar db:password, which the recipe marks as secret, so everybody who has "
        "the image has it; let a state of at_launch write it to /run"
    ]


def test_a_value_of_a_secret_store_is_named_by_its_uri(warn):
    (warning,) = warn({"etc/app.conf": "password = correct-horse\n"}, Secret("sdb://vault/app", "correct-horse"))
    assert warning == (
        "/etc/app.conf holds the value of sdb://vault/app, which the states read from a secret store, so everybody who "
        "has the image has it; let a state of at_launch write it to /run"
    )


@pytest.mark.parametrize(
    ("value", "content"),
    [
        pytest.param("correct-horse", b"\0\xff correct-horse \xff", id="in a binary file"),
        pytest.param("correct-horse\n", "x=correct-horse;", id="without the end of its line"),
        pytest.param("pässwörd", "p=pässwörd", id="beyond ASCII"),
        pytest.param(KEY, KEY, id="of several lines"),
        pytest.param(KEY, textwrap.indent(KEY, "    "), id="of several lines, indented"),
        pytest.param(KEY, json.dumps({"key": KEY}), id="of several lines, in JSON"),
    ],
)
def test_forms_of_a_value_that_are_found(warn, value, content):
    (warning,) = warn({"f": content}, Secret("p", value))
    assert "/f holds the value of pillar p, " in warning


def test_the_lines_that_all_keys_share_are_no_secret(warn):
    assert (
        warn({"f": "-----BEGIN PRIVATE KEY-----\nsomething else\n-----END PRIVATE KEY-----\nshort\n"}, Secret("p", KEY))
        == []
    )


@given(st.binary(max_size=8), st.binary(min_size=6, max_size=100), st.binary(max_size=8))
def test_base64_is_found_at_any_offset(before, value, after):
    encoded = base64.b64encode(before + value + after)
    assert any(needle in encoded for needle in secrets._base64(value)), (before, value, after)


def test_base64_with_broken_lines_is_found(warn):
    (warning,) = warn({"f": base64.encodebytes(KEY.encode())}, Secret("tls:key", KEY))
    assert "/f holds the value of pillar tls:key as base64, " in warning


@pytest.mark.parametrize("at", [(1 << 20) - 7, (1 << 20) - 1, 1 << 20, (2 << 20) - 13])
def test_a_value_across_two_pieces_of_a_large_file_is_found(warn, at):
    assert len(warn({"large": b"." * at + b"correct-horse" + b"." * 99})) == 1


def test_a_value_in_the_name_of_a_file_is_redacted(warn):
    (warning,) = warn({"srv/correct-horse/x": "correct-horse"})
    assert warning.startswith("/srv/<db:password>/x holds")


def test_only_files_are_read(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    assert warnings(tmp_path, [DB]) == []


def test_many_files_are_counted(warn):
    found = warn({f"etc/{number:03}": "correct-horse" for number in range(25)})
    assert len(found) == 21
    assert found[-1] == "... and 5 more files hold the value of pillar db:password"


def test_errors_show_no_value():
    with pytest.raises(CommandExecutionError) as err, secrets.redacted([DB, Secret("tls:key", KEY)]):
        raise CommandExecutionError(f"-correct-horse\n  {'Q' * 63}x\n+fine")
    assert str(err.value) == "-<db:password>\n  <tls:key>\n+fine"
    assert err.value.__suppress_context__
    with pytest.raises(CommandExecutionError, match="^fine$"), secrets.redacted([DB]):
        raise CommandExecutionError("fine")


def test_the_repr_of_a_secret_does_not_show_it():
    assert "correct-horse" not in f"{DB!r} {[DB]}"


class Machine:
    """A machine that bakes. Its Salt prints the given text."""

    def __init__(self, stdout: str, returncode: int = 0) -> None:
        self.done = CompletedProcess([], returncode, stdout, "correct-horse in a traceback")
        self.words: list[str] = []

    def run(self, words: list[str]) -> CompletedProcess[str]:
        self.words = words
        return self.done


ORDER = {"bake_id": "web-bake", "within": 60.0, "saltenv": "prod", "pillarenv": None, "secrets": ["db:password"]}


def test_the_pillar_is_read_as_the_states_see_it_and_only_where_something_is_marked():
    machine = Machine(f"some noise\n{json.dumps(PILLAR)}\n")
    assert secrets.read(machine, ORDER) == [DB]
    assert json.loads(machine.words[-1]) == ["prod", None]
    machine = Machine("")
    assert secrets.read(machine, {**ORDER, "secrets": []}) == []
    assert machine.words == []


@pytest.mark.parametrize("machine", [Machine(""), Machine("correct-horse", 1), Machine('{"db": "correct', 124)])
def test_the_error_of_an_unreadable_pillar_shows_nothing_of_it(machine):
    with pytest.raises(CommandExecutionError) as err:
        secrets.read(machine, ORDER)
    assert "the pillar of web-bake could not be read" in str(err.value)
    assert "correct" not in str(err.value)
