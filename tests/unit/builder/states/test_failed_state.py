"""What a failed state does not say by itself is added to its comment, once."""

from __future__ import annotations

import logging
import sys

import pytest

from saltext.immutable.builder.states import failed_state

PSQL = [
    "Command 'psql' failed with return code: 1",
    'stderr: ERROR:  invalid locale name: "en_US.UTF-8"',
    "retcode: 1",
    "Error connecting to Postgresql server",
]
CMD = ["Command '/bin/false' failed with return code: 1", "stdout: a\nb", "stderr: no such\nthing", "retcode: 1"]


class FakeFunctions:
    def missing_fun_string(self, name: str) -> str:
        return f"'{name.partition('.')[0]}' __virtual__ returned False: no ssh-keygen"


def explained(comment: str, errors: list[str], changes: object = None, result: bool | None = False) -> str:
    state = {"result": result, "comment": comment, "changes": {} if changes is None else changes}
    return str(failed_state.explained(state, errors, FakeFunctions())["comment"])


@pytest.mark.parametrize(
    ("comment", "errors", "changes", "says"),
    [
        pytest.param(
            "Failed to create database db1",
            PSQL,
            {},
            "Failed to create database db1\nSalt's log says:\nCommand 'psql' failed with return code: 1\n"
            'stderr: ERROR:  invalid locale name: "en_US.UTF-8"\nError connecting to Postgresql server',
            id="the reason is in the log only",
        ),
        pytest.param(
            "Command run",
            [*CMD, "{'pid': 1, 'retcode': 1}"],
            {"stdout": "a\nb", "stderr": "no such\nthing", "retcode": 1},
            "Command run",
            id="the output of a command is in its changes",
        ),
        pytest.param(
            "Could not remove '/proc': [Errno 16] Device or resource busy: '/proc'",
            [],
            {},
            "Could not remove '/proc': [Errno 16] Device or resource busy: '/proc'\nThe bake has /proc mounted there, "
            "and no layer keeps it; leave it out of what the state cleans (exclude_pat: proc)",
            id="what is mounted is not removed",
        ),
        pytest.param(
            "[Errno 16] Device or resource busy: '/etc'", [], {}, "[Errno 16] Device or resource busy: '/etc'",
            id="it is busy, and no mount",
        ),
        pytest.param("it is no such\nthing", CMD[2:], {}, "it is no such\nthing", id="it is in the comment"),
        pytest.param("no", ["a", "a"], {}, "no\nSalt's log says:\na", id="the same twice"),
        pytest.param(
            "no", [str(n) for n in range(30)], {}, "\n".join(["no", "Salt's log says:", *map(str, range(20, 30))]),
            id="the last lines",
        ),
        pytest.param("no", [], {}, "no", id="no log"),
        pytest.param("no", ["why"], [], "no\nSalt's log says:\nwhy", id="changes that are no mapping"),
        pytest.param(
            "An exception occurred in this state: Traceback\n    KeyError: 'ssh.set_auth_key'\n",
            ["other"],
            {},
            "An exception occurred in this state: Traceback\n    KeyError: 'ssh.set_auth_key'\n\n"
            "ssh.set_auth_key cannot be called: 'ssh' __virtual__ returned False: no ssh-keygen",
            id="a function that is not there",
        ),
    ],
)  # fmt: skip
def test_it_says_what_is_not_known_yet(comment, errors, changes, says):
    assert explained(comment, errors, changes) == says


@pytest.mark.parametrize("result", [True, None])
def test_of_one_that_did_not_fail_nothing_is_added(result):
    assert explained("ok", PSQL, result=result) == "ok"


def test_errors_are_heard_only_meanwhile():
    log = logging.getLogger("salt.modules.x")
    with failed_state.errors_logged() as errors:
        log.error("a %s", "b")
        log.warning("c")
    log.error("d")
    assert errors == ["a b"]


def test_the_check_of_a_config_is_asked_where_one_is_known(monkeypatch):
    def checks(code: int) -> tuple[str, ...]:
        return (sys.executable, "-c", f"import sys; print('line 3: what?'); sys.exit({code})")

    monkeypatch.setattr(
        failed_state, "_CONFIG_CHECKS", {"a.service": checks(1), "b.service": checks(0), "c.service": ("/no/such",)}
    )
    assert failed_state.config_errors("a.service").endswith("says:\nline 3: what?")
    assert [failed_state.config_errors(f"{name}.service") for name in "bcd"] == ["", "", ""]
