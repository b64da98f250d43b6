"""The message about states that failed in a bake."""

from __future__ import annotations

import pytest

from saltext.immutable.builder.states import failures

FINE = {"result": True, "comment": "fine", "changes": {}, "__run_num__": 0, "__sls__": "web"}
COMMAND = {
    "result": False,
    "comment": 'Command "migrate" run',
    "changes": {"pid": 7, "retcode": 3, "stdout": "\n".join(map(str, range(40))), "stderr": "no route to the database"},
    "__run_num__": 2,
    "__sls__": "web.db",
}
SERVICE = {"result": False, "comment": "failed\n  status", "changes": {}, "__run_num__": 1, "__sls__": "web"}
WAITED = {"result": False, "comment": "One or more requisite failed: web.db.migrate", "changes": {}, "__run_num__": 3}


def test_each_state_that_failed_is_shown_in_order_and_what_waited_for_it_is_counted():
    said = failures.describe(
        {
            "cmd_|-migrate_|-migrate --all_|-run": COMMAND,
            "file_|-a_|-/etc/a_|-managed": FINE,
            "service_|-nginx_|-nginx_|-running": SERVICE,
            "file_|-b_|-/etc/b_|-managed": WAITED,
        }
    )
    assert said.splitlines()[:4] == [
        "2 of 4 states failed in the bake, and 1 that need them did not run; correct them, and bake again:",
        "- nginx (service.running) of web",
        "    failed",
        "      status",
    ]
    assert "- migrate (cmd.run) of web.db, name migrate --all" in said
    assert "    stderr: no route to the database\n    exit code 3" in said
    assert "39" in said and "29" not in said.replace("exit", ""), "the last ten lines of the output"
    assert "requisite" not in said


def test_states_that_change_something_each_time_are_named_but_for_what_is_left_to_the_boot():
    result = {
        "cron_|-backup_|-/usr/local/bin/backup_|-present": {
            "result": None,
            "comment": "Cron is set to be updated",
            "__run_num__": 2,
            "__sls__": "web",
        },
        "sysctl_|-vm.x_|-vm.x_|-present": {"result": None, "comment": "x", "__run_num__": 1, "__sls__": "web"},
        "file_|-a_|-/etc/a_|-managed": FINE,
    }
    found = failures.changed_again(result, {"vm.x (sysctl.present) of web"})
    assert found == {"backup (cron.present) of web, name /usr/local/bin/backup": "Cron is set to be updated"}
    assert failures.describe_changed(found).splitlines() == [
        "states that would change something each time:",
        "- backup (cron.present) of web, name /usr/local/bin/backup",
        "    Cron is set to be updated",
    ]
    assert failures.changed_again({"file_|-a_|-/etc/a_|-managed": FINE}, set()) == {}
    assert failures.describe_changed({}) == ""


def test_a_state_without_anything_to_say_is_named():
    said = failures.describe({"nope_|-a_|-a_|-nope": {"result": False, "comment": None, "changes": "odd"}})
    assert said.splitlines() == ["1 of 1 states failed in the bake; correct them, and bake again:", "- a (nope.nope)"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a:\n  file.managed: []\nmigrate:\n  cmd.run: []\n", 3, id="plain"),
        pytest.param("# migrate the rest\n'migrate':\n  cmd.run: []\n", 2, id="quoted"),
        pytest.param("{% if x %}\n  migrate :\n    cmd.run: []\n{% endif %}\n", 2, id="indented"),
        pytest.param("migrate-all:\n  cmd.run: []\n", None, id="a longer id"),
        pytest.param("{{ name }}:\n  cmd.run: []\n", None, id="an id that Jinja makes"),
        pytest.param("{% if a %}\nmigrate:\n{% else %}\nmigrate:\n{% endif %}", None, id="two places"),
    ],
)
def test_the_line_of_a_state_is_named_if_it_is_certain(text, line):
    assert failures.line_of("migrate", text) == line


def test_the_message_says_where_the_state_is():
    result = {"cmd_|-migrate_|-migrate --all_|-run": {"result": False, "comment": "no", "__sls__": "web.db"}}
    said = failures.describe(result, lambda sls, state_id: f"{sls}/{state_id}:7")
    assert "- migrate (cmd.run) of web.db, name migrate --all, at web.db/migrate:7" in said


def test_a_state_whose_function_salt_does_not_have_is_found_too():
    comment = "State 'docker_container.running' was not found in SLS 'web.db'\nReason: it is not available."
    said = failures.describe(
        {"docker_container_|-db_|-db_|-running": {"result": False, "comment": comment}},
        lambda sls, state_id: f"{sls}/{state_id}:7",
    )
    assert "- db (docker_container.running) of web.db, at web.db/db:7\n    State" in said


def test_an_exception_in_a_state_is_told_without_its_traceback():
    comment = (
        "An exception occurred in this state: Traceback (most recent call last):\n"
        '  File "/opt/salt/lib/python3.11/site-packages/salt/state.py", line 9, in call\n'
        "    self.format_slots(cdata)\n"
        "KeyError: 'x'\n"
    )
    state = {"result": False, "comment": comment, "__sls__": "web"}
    told = "An exception occurred in this state: KeyError: 'x'"
    said = failures.describe({"file_|-a_|-/etc/a_|-managed": state})
    assert said.splitlines()[1:] == ["- a (file.managed) of web, name /etc/a", f"    {told}"]
    assert list(failures.changed_again({"file_|-a_|-/etc/a_|-managed": state}, ()).values()) == [told]


@pytest.mark.parametrize(
    ("error", "states"),
    [
        pytest.param("ID c in SLS web is not a dictionary", [("web", "c")], id="no dictionary"),
        pytest.param("State 'a b' in SLS 'web.db' is not formed as a list", [("web.db", "a b")], id="no list"),
        pytest.param(
            "Referenced state does not exist for requisite [require: (pkg: x)] in state [a] in SLS [web]",
            [("web", "a")],
            id="a requisite of nothing",
        ),
        pytest.param(
            "Recursive requisites were found: ({'SLS': 'web', 'ID': 'b'}, 'require', {'SLS': 'web', 'ID': 'a'}), "
            "({'SLS': 'web', 'ID': 'a'}, 'require', {'SLS': 'web', 'ID': 'b'})",
            [("web", "b"), ("web", "a")],
            id="a circle",
        ),
        pytest.param(
            "Detected conflicting IDs, SLS IDs need to be globally unique.\n"
            "    The conflicting ID is 'same' and is found in SLS 'base:web' and SLS 'base:web.two'",
            [("web", "same"), ("web.two", "same")],
            id="one id twice",
        ),
        pytest.param(
            "Cannot extend ID 'a' in 'base:web'. It is not part of the high state.\nThis is likely due to a missing "
            "include\nEnsure that a state with an ID of 'a' is available\nin environment 'base' and to SLS 'web'",
            [("web", "a")],
            id="an extension of nothing",
        ),
        pytest.param(
            "Invalid requisite type 'file.managed' in state 'a', in SLS 'web'. Requisite types must not contain dots",
            [("web", "a")],
            id="an invalid requisite",
        ),
        pytest.param("The names argument in state \"a\" in SLS \"web\" needs", [("web", "a")], id="double quotes"),
        pytest.param("Specified SLS nothere in saltenv base is not available", [], id="none"),
    ],
)
def test_states_that_salt_names_in_an_error_are_found(error, states):
    assert failures.named_states(error) == states


def test_an_sls_that_is_missing_is_found():
    assert failures.missing_sls("Specified SLS web.x in saltenv base is not available on the salt master") == ["web.x"]
    assert failures.missing_sls("ID c in SLS web is not a dictionary") == []
