"""Secrets of the pillar in a layer: which values are meant, where they are found, and that none is ever told."""

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
        pytest.param(["*:password"], ["db:password"], id="it does not reach over two"),
        pytest.param(["tokens"], ["tokens:0", "tokens:1:deep"], id="all that is below"),
        pytest.param(["tokens:0"], ["tokens:0"], id="an element of a list"),
        pytest.param(["db"], ["db:password"], id="short words and numbers are left out"),
        pytest.param(["pin", "nowhere:x"], [], id="nothing"),
        pytest.param(["db:*", "db:password"], ["db:password"], id="marked twice, meant once"),
    ],
)
def test_what_is_marked(patterns, paths):
    assert [secret.pillar for secret in secrets.marked(PILLAR, patterns)] == paths


def warnings(tree, marked) -> list[str]:
    return secrets.warnings(search(tree, secrets.looks(marked)), marked)


@pytest.fixture
def said(tmp_path):
    """Return what is said of a layer with these files."""

    def look(files, *marked) -> list[str]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return warnings(tmp_path, marked or [DB])

    return look


def test_file_and_pillar_path_are_named_and_what_to_do(said):
    assert said({"etc/app.conf": "password = correct-horse\n", "etc/other": "correct-hors"}) == [
        "/etc/app.conf holds the value of pillar db:password, which the recipe marks as secret: whoever has the image "
        "has it; let a state of at_launch write it to /run"
    ]


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
def test_how_a_value_may_be_written(said, value, content):
    (warning,) = said({"f": content}, Secret("p", value))
    assert "/f holds the value of pillar p, " in warning


def test_what_all_keys_have_in_common_is_no_secret(said):
    assert (
        said({"f": "-----BEGIN PRIVATE KEY-----\nsomething else\n-----END PRIVATE KEY-----\nshort\n"}, Secret("p", KEY))
        == []
    )


@given(st.binary(max_size=8), st.binary(min_size=6, max_size=100), st.binary(max_size=8))
def test_base64_is_found_whatever_is_around(before, value, after):
    encoded = base64.b64encode(before + value + after)
    assert any(needle in encoded for needle in secrets._base64(value)), (before, value, after)


def test_base64_with_broken_lines_is_found(said):
    (warning,) = said({"f": base64.encodebytes(KEY.encode())}, Secret("tls:key", KEY))
    assert "/f holds the value of pillar tls:key as base64, " in warning


@pytest.mark.parametrize("at", [(1 << 20) - 7, (1 << 20) - 1, 1 << 20, (2 << 20) - 13])
def test_a_value_across_two_pieces_of_a_large_file_is_found(said, at):
    assert len(said({"large": b"." * at + b"correct-horse" + b"." * 99})) == 1


def test_a_value_is_concealed_where_a_file_is_named_by_it(said):
    (warning,) = said({"srv/correct-horse/x": "correct-horse"})
    assert warning.startswith("/srv/<db:password>/x holds")


def test_only_files_are_read(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    assert warnings(tmp_path, [DB]) == []


def test_many_files_are_counted(said):
    found = said({f"etc/{number:03}": "correct-horse" for number in range(25)})
    assert len(found) == 21
    assert found[-1] == "... and 5 more files hold the value of pillar db:password"


def test_errors_show_no_value():
    with pytest.raises(CommandExecutionError) as err, secrets.concealed([DB, Secret("tls:key", KEY)]):
        raise CommandExecutionError(f"-correct-horse\n  {'Q' * 63}x\n+fine")
    assert str(err.value) == "-<db:password>\n  <tls:key>\n+fine"
    assert err.value.__suppress_context__
    with pytest.raises(CommandExecutionError, match="^fine$"), secrets.concealed([DB]):
        raise CommandExecutionError("fine")


def test_a_secret_does_not_show_itself():
    assert "correct-horse" not in f"{DB!r} {[DB]}"


class Machine:
    """A machine that bakes, whose Salt says this."""

    def __init__(self, stdout: str, returncode: int = 0) -> None:
        self.done = CompletedProcess([], returncode, stdout, "correct-horse in a traceback")
        self.words: list[str] = []

    def run(self, words: list[str]) -> CompletedProcess[str]:
        self.words = words
        return self.done


ORDER = {"bake_id": "web-bake", "within": 60.0, "saltenv": "prod", "pillarenv": None, "secrets": ["db:password"]}


def test_the_pillar_is_asked_for_as_the_states_see_it_and_only_where_something_is_marked():
    machine = Machine(f"some noise\n{json.dumps(PILLAR)}\n")
    assert secrets.known(machine, ORDER) == [DB]
    assert json.loads(machine.words[-1]) == ["prod", None]
    machine = Machine("")
    assert secrets.known(machine, {**ORDER, "secrets": []}) == []
    assert machine.words == []


@pytest.mark.parametrize("machine", [Machine(""), Machine("correct-horse", 1), Machine('{"db": "correct', 124)])
def test_a_pillar_that_cannot_be_read_fails_without_a_word_of_it(machine):
    with pytest.raises(CommandExecutionError) as err:
        secrets.known(machine, ORDER)
    assert "the pillar of web-bake could not be read" in str(err.value)
    assert "correct" not in str(err.value)
