"""Salt on the master: pillars, health checks, jobs, events and keys."""

from __future__ import annotations

import http.server
import io
import json
import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import salt.cache
import salt.config
from salt.exceptions import CommandExecutionError, SaltInvocationError, SaltReqTimeoutError
from salt.utils.crypt import pem_finger

from saltext.immutable import minions
from saltext.immutable.minions import LaunchFailed, Minions, NoAnswer, health, proven_answers
from saltext.immutable.minions import jobs as jobs_of_salt
from saltext.immutable.minions.events import MAX_EVENTS
from saltext.immutable.minions.keys import Keys
from saltext.immutable.spec.model import STATES_CHECK, FunctionCheck, HttpCheck


@pytest.fixture
def opts(tmp_path) -> dict[str, Any]:
    (tmp_path / "pillar").mkdir()
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/master.pub").write_text("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n")
    return {
        **salt.config.master_config(None),
        "pki_dir": str(tmp_path / "pki"),
        "root_dir": str(tmp_path),
        "cachedir": str(tmp_path / "cache"),
        "extension_modules": str(tmp_path / "extmods"),
        "pillar_roots": {"base": [str(tmp_path / "pillar")]},
        "id": "m_master",
        "pillar_cache": True,
    }


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Disable logging: Salt would print errors again after pytest's last line."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def write(opts: dict[str, Any], **files: str) -> None:
    for name, text in files.items():
        with open(f"{opts['pillar_roots']['base'][0]}/{name}.sls", "w") as file:
            file.write(text)


def test_a_pillar_is_compiled_anew_each_time(opts):
    write(opts, top="base: {'web-*': [web]}", web="version: 1")
    assert minions.pillar(opts, "web-1", {"id": "web-1"}) == {"version": 1}
    write(opts, web="version: 2")
    assert minions.pillar(opts, "web-1", {"id": "web-1"}) == {"version": 2}
    assert minions.pillar(opts, "db-1", {"id": "db-1"}) == {}


@pytest.mark.parametrize(
    ("files", "error"),
    [
        pytest.param({"web": "a: {"}, "(?s)pillar of web-1 does not compile.*web", id="broken YAML"),
        pytest.param({"web": "b: 1\na: {\n"}, "a: {    <===", id="and the lines around"),
        pytest.param({"web": "a: {{ nothing.at.all }}"}, "undefined", id="broken Jinja"),
        pytest.param({}, "(?s)Specified SLS.*web.*not available", id="a missing SLS"),
    ],
)
@pytest.mark.usefixtures("unlogged")
def test_a_pillar_with_errors_raises_them(opts, files, error):
    write(opts, top="base: {'*': [web]}", **files)
    with pytest.raises(SaltInvocationError, match=error):
        minions.pillar(opts, "web-1", {"id": "web-1"})


def test_a_broken_definition_is_named_by_its_path(opts):
    write(opts, top="base: {'*': [web]}", web="immutable: {recipes: {web: {form: {debian: bookworm}}}}")
    with pytest.raises(SaltInvocationError, match="immutable:recipes:web"):
        minions.definitions(opts)


def test_the_masters_grains_do_not_rename_whose_pillar_it_is(opts):
    definition = "immutable: {recipes: {'{{ grains.id }}': {from: {debian: bookworm}}}}"
    write(opts, top="base: {definitions: [web]}", web=definition)
    opts |= {"grains": {"id": "master"}, "immutable": {"pillar_id": "definitions"}}
    assert set(minions.definitions(opts).recipes) == {"definitions"}


def test_the_pillar_of_another_id_can_hold_the_definitions(opts):
    write(opts, top="base: {definitions: [web]}", web="immutable: {recipes: {web: {from: {debian: bookworm}}}}")
    with pytest.raises(SaltInvocationError, match="the pillar has no such key"):
        minions.definitions(opts)
    assert set(minions.definitions({**opts, "immutable": {"pillar_id": "definitions"}}).recipes) == {"web"}


# Health over HTTP


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
        elif self.path == "/drips":
            with suppress(OSError):
                while not self.server.release.wait(0.03):  # type: ignore[attr-defined]
                    self.wfile.write(b"H")
            return
        elif self.path == "/endless":
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 " + b"2" * 1_000_000)
            return
        elif self.path == "/hangs":
            self.server.release.wait(10)  # type: ignore[attr-defined]
            return
        elif self.path == "/nonsense":
            self.wfile.write(b"what?\r\n\r\n")
            return
        else:
            self.send_response(int(self.path.strip("/").split("?")[0]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        found.release = threading.Event()
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{found.server_port}"
        found.release.set()
        found.shutdown()
        thread.join()


@pytest.fixture
def salt_side(monkeypatch) -> Minions:
    """Minions whose jobs and bus are not needed."""
    found = object.__new__(Minions)
    found._forged = deque()
    return found


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("200", None, id="200 is healthy"),
        pytest.param("204", None, id="so is any 2xx"),
        pytest.param("moved?/200", None, id="so is any 3xx"),
        pytest.param("moved?http://a..b/", None, id="a redirect is not followed"),
        pytest.param("500", "answers 500", id="500 is ill"),
        pytest.param("404", "answers 404", id="404 is ill"),
        pytest.param("503?id={minion_id}", "503?id=web-1 answers 503", id="the minion id is filled in"),
    ],
)
def test_http(salt_side, server, path, why):
    found = salt_side.check("web-1", server, HttpCheck("http://{address}/" + path), 5)
    assert found is None if why is None else why in found


def test_a_refused_connection_is_unhealthy(salt_side):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert "refused" in str(salt_side.check("web-1", address, HttpCheck("http://{address}/"), 5))


@pytest.mark.parametrize(
    ("path", "timeout", "within"),
    [
        pytest.param("hangs", {"timeout": 0.1}, 5, id="silence, for as long as the check says"),
        pytest.param("hangs", {}, 0.1, id="silence, for as long as there is time"),
        pytest.param("drips", {"timeout": 0.1}, 5, id="a byte now and then"),
        pytest.param("nonsense", {}, 5, id="what is no HTTP"),
        pytest.param("endless", {}, 5, id="a line without an end"),
    ],
)
def test_without_an_http_answer_health_is_unknown(salt_side, server, path, timeout, within):
    with pytest.raises(NoAnswer, match=path):
        salt_side.check("web-1", server, HttpCheck("http://{address}/" + path, **timeout), within)


def test_with_a_wrong_host_name_health_is_unknown(salt_side):
    with pytest.raises(NoAnswer, match="a..b"):
        salt_side.check("web-1", "a..b", HttpCheck("http://{address}/"), 5)


def test_a_proxy_is_not_asked_for_a_machines_health(salt_side, server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert salt_side.check("web-1", server, HttpCheck("http://{address}/200"), 5) is None


# Health by functions


class Jobs:
    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def ask(self, *_: Any, within: float) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        pytest.param(True, None, id="true is healthy"),
        pytest.param({"a": 1}, None, id="so is anything that is not empty"),
        pytest.param(False, "service.status nginx returned False", id="false is ill"),
        pytest.param(None, "service.status nginx returned None", id="nothing is ill"),
        pytest.param(CommandExecutionError("web-1: service.status: boom"), "boom", id="a failure is ill"),
    ],
)
def test_functions(salt_side, outcome, why):
    salt_side._jobs = Jobs(outcome)
    found = salt_side.check("web-1", None, FunctionCheck("service.status", ("nginx",)), 5)
    assert found is None if why is None else why in found


STATUS = {"return": {"digest": "a" * 64}, "retcode": 0}


def proven_by(monkeypatch, answers) -> None:
    """Let machines prove what ``answers`` returns, without a master."""
    monkeypatch.setattr(proven_answers, "answers", answers)
    monkeypatch.setattr(minions.Jobs, "_client", lambda self: None)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param({"return": True, "retcode": 0}, None, id="all is well"),
        pytest.param({"return": False, "retcode": 0}, "service.status nginx returned False", id="ill"),
        pytest.param({"error": "ValueError: boom"}, "ValueError: boom", id="one that raised"),
        pytest.param({"return": "not found", "retcode": 254}, "not found", id="one that failed"),
        pytest.param({}, "web-1: service.status", id="one of which nothing is said"),
        pytest.param("x", "web-1: service.status", id="one of any shape"),
    ],
)
def test_all_checks_run_in_one_job(salt_side, monkeypatch, answer, found):
    asked = []

    def proven(client, another, opts, minion_id, questions, within, forged):
        asked.append(json.loads(questions))
        return [STATUS, answer, {"return": True, "retcode": 0}]

    proven_by(monkeypatch, proven)
    salt_side._jobs = minions.Jobs({})
    checks = [FunctionCheck("service.status", ("nginx",)), FunctionCheck("disk.has", kwargs={"free": 3})]
    image, reasons = salt_side.check_all("web-1", checks, 5)
    assert asked == [[["immutable.status", [], {}], ["service.status", ["nginx"], {}], ["disk.has", [], {"free": 3}]]]
    assert image == "a" * 64
    assert reasons[1] is None
    assert (reasons[0] is None) == (found is None)
    assert found is None or found in reasons[0]


@pytest.mark.parametrize("answers", [[], [STATUS], [STATUS] * 3])
def test_answers_to_other_questions_are_none(salt_side, monkeypatch, answers):
    proven_by(monkeypatch, lambda *_: answers)
    salt_side._jobs = minions.Jobs({})
    with pytest.raises(NoAnswer, match="to 2 questions"):
        salt_side.check_all("web-1", [FunctionCheck("test.ping")], 5)


def test_checks_without_a_status_raise(salt_side, monkeypatch):
    proven_by(monkeypatch, lambda *_: [{"error": "boom"}, {"return": True, "retcode": 0}])
    salt_side._jobs = minions.Jobs({})
    with pytest.raises(CommandExecutionError, match="boom"):
        salt_side.check_all("web-1", [FunctionCheck("test.ping")], 5)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param({"nginx.service": "active"}, None, id="they run"),
        pytest.param({}, None, id="there are none"),
        pytest.param({"ntpsec.service": "not applicable: ConditionCapability=CAP_SYS_TIME is not met"}, None, id="n/a"),
        pytest.param(
            {"nginx.service": "failed (exit-code)", "cron.service": "active", "app.service": "activating"},
            "nginx.service is failed (exit-code), app.service is activating, "
            "but the states of its image want it running",
            id="some do not run",
        ),
        pytest.param(CommandExecutionError("immutable.services is not available"), None, id="a former version"),
        pytest.param(
            CommandExecutionError("sealed: image web@1: immutable.services would change this machine; bake"),
            None,
            id="the guard of a former version",
        ),
        pytest.param(
            CommandExecutionError("web-1: immutable.services: sealed: image web@1: its recipe denies it"),
            None,
            id="a former version that denies everything",
        ),
        pytest.param(CommandExecutionError("its seal is damaged"), "its seal is damaged", id="an error"),
        pytest.param("x", "immutable.services returned 'x'", id="an answer of any shape"),
    ],
)
def test_services_that_the_states_declare_running_are_a_check(answer, found):
    assert health.unhealthy(STATES_CHECK, answer) == found


def test_checks_without_a_question_for_the_image_are_one_job_too(salt_side, monkeypatch):
    asked = []

    def proven(client, another, opts, minion_id, questions, within, forged):
        asked.append(json.loads(questions))
        return [{"return": {"nginx.service": "inactive"}, "retcode": 0}, {"return": True, "retcode": 0}]

    proven_by(monkeypatch, proven)
    salt_side._jobs = minions.Jobs({})
    first, second = salt_side.check_together("web-1", [STATES_CHECK, FunctionCheck("test.ping")], 5)
    assert (first, second) == ("nginx.service is inactive, but the states of its image want it running", None)
    assert asked == [[["immutable.services", [], {}], ["test.ping", [], {}]]]


def test_without_an_answer_health_is_unknown(salt_side):
    salt_side._jobs = Jobs(NoAnswer("web-1 does not answer"))
    with pytest.raises(NoAnswer):
        salt_side.check("web-1", None, FunctionCheck("test.ping"), 5)


@pytest.mark.parametrize(
    ("answer", "digest"),
    [
        pytest.param({"digest": "a" * 64}, "a" * 64, id="a sealed machine"),
        pytest.param({"digest": None}, "", id="a machine without an image"),
        pytest.param("immutable.status is not available", NoAnswer, id="text"),
        pytest.param(["a" * 64], NoAnswer, id="a list"),
        pytest.param({"digest": ["a" * 64]}, NoAnswer, id="a digest that is none"),
        pytest.param(None, NoAnswer, id="nothing"),
    ],
)
def test_an_image_is_reported_or_unknown(salt_side, answer, digest):
    salt_side._jobs = Jobs(answer)
    if digest is NoAnswer:
        with pytest.raises(NoAnswer, match="immutable.status returned"):
            salt_side.image_of("web-1", 15)
    else:
        assert salt_side.image_of("web-1", 15) == digest


@pytest.mark.parametrize(
    ("launched", "raised", "message"),
    [
        pytest.param(False, NoAnswer, "its launch phase has not ended", id="under way"),
        pytest.param(None, NoAnswer, "its launch phase has not ended", id="nonsense"),
        pytest.param("the launch phase failed: db: x", LaunchFailed, "the launch phase failed: db: x", id="failed"),
    ],
)
def test_an_image_does_not_count_before_the_launch_phase_succeeded(salt_side, launched, raised, message):
    salt_side._jobs = Jobs({"digest": "a" * 64, "launched": launched})
    with pytest.raises(raised) as err:
        salt_side.image_of("web-1", 15)
    assert (type(err.value), str(err.value)) == (raised, message)
    salt_side._jobs = Jobs({"digest": "a" * 64, "launched": True})
    assert salt_side.image_of("web-1", 15) == "a" * 64


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        pytest.param({"web-1": {"ret": True, "retcode": 0}}, True, id="a return"),
        pytest.param({"web-1": {"ret": None}}, None, id="a function may return nothing"),
        pytest.param({"web-1": {"ret": "no such unit", "retcode": 1}}, "no such unit", id="a failure"),
        pytest.param({}, NoAnswer, id="no return"),
        pytest.param({"web-1": False}, NoAnswer, id="no connection"),
        pytest.param(
            {"web-1": {"ret": "Minion did not return. [No response]", "out": "no_return", "retcode": 1}},
            NoAnswer,
            id="an answer that Salt made up",
        ),
        pytest.param({"other": {"ret": True}}, NoAnswer, id="somebody else's"),
        pytest.param(SaltReqTimeoutError("no master"), NoAnswer, id="no master"),
    ],
)
def test_jobs(monkeypatch, opts, returned, outcome):
    class Client:
        def __init__(self, **_: Any) -> None: ...

        def cmd(self, *_: Any, **__: Any) -> Any:
            if isinstance(returned, Exception):
                raise returned
            return returned

    monkeypatch.setattr(jobs_of_salt, "Client", Client)
    jobs = minions.Jobs(opts)
    if outcome is NoAnswer:
        with pytest.raises(NoAnswer):
            jobs.run("web-1", "test.ping")
    elif isinstance(outcome, str):
        with pytest.raises(CommandExecutionError, match=outcome):
            jobs.run("web-1", "test.ping")
    else:
        assert jobs.run("web-1", "test.ping") == outcome


@pytest.mark.parametrize(
    ("published", "job"),
    [
        pytest.param({"jid": "17", "minions": ["web-1"]}, {"jid": "17", "minions": ["web-1"]}, id="one"),
        pytest.param({"jid": "17", "minions": []}, {}, id="none has that id"),
        pytest.param({"error": "no"}, {}, id="refused"),
    ],
)
def test_a_job_that_reached_nobody_is_not_printed_among_the_results(capsys, published, job):
    client = object.__new__(jobs_of_salt.Client)
    client.opts, client.event = {}, None
    assert client._check_pub_data(published, listen=False) == job
    assert capsys.readouterr().out == ""


# Events


class Bus:
    """An event bus that gives these events; if ``endless``, the first one again and again."""

    def __init__(self, events: list[tuple[str, Any]], endless: bool = False) -> None:
        self.events, self.endless = list(events), endless

    def get_event(self, **_: Any) -> Any:
        if not self.events:
            return None
        tag, data = self.events[0] if self.endless else self.events.pop(0)
        return {"tag": tag, "data": data}


@pytest.mark.parametrize(
    ("tag", "data", "kind"),
    [
        pytest.param("salt/minion/web-1/start", {}, "started", id="a start"),
        pytest.param("salt/job/1/ret/web-1", {}, None, id="anything else"),
        pytest.param("salt/auth", {"id": "web-1", "pub": "A", "act": "accept"}, None, id="a key is accepted"),
        pytest.param("salt/auth", {"id": "web-1", "pub": "B", "act": "denied"}, "denied", id="a key is denied"),
        pytest.param("salt/auth", {"pub": "x", "act": "denied"}, None, id="a minion's, of nobody"),
        pytest.param("salt/auth", {"pub": "x", "act": "denied", "id": ["web-1"]}, None, id="a minion's, of no id"),
        pytest.param("salt/auth", "denied", None, id="a minion's, of another shape"),
    ],
)
def test_events(salt_side, tag, data, kind):
    salt_side._bus = Bus([(tag, data)])
    assert salt_side.poll() == ([minions.Event(kind, "web-1")] if kind else [])


def test_a_forged_answer_is_an_event_once(salt_side):
    salt_side._bus = Bus([("salt/minion/web-1/start", {})])
    salt_side._forged.extend(["web-2", "web-2"])
    assert salt_side.poll() == [minions.Event("forged", "web-2"), minions.Event("started", "web-1")]
    salt_side._forged.extend(["web-2", "web-3", "web-2"])
    assert salt_side.forged() == ["web-2", "web-3"] and salt_side.forged() == []
    assert salt_side.poll() == []


def test_a_busy_bus_does_not_keep_its_reader(salt_side):
    salt_side._bus = Bus([("salt/minion/web-1/start", {})], endless=True)
    assert len(salt_side.poll()) == MAX_EVENTS


@pytest.mark.parametrize(
    ("keys", "contested"),
    [
        pytest.param({"minions": ["web-1"], "minions_denied": ["web-1"]}, True, id="another key was denied"),
        pytest.param({"minions": ["web-1"], "minions_denied": ["db-1"]}, False, id="another minion's was"),
        pytest.param({"minions": ["web-1"]}, False, id="none was"),
    ],
)
def test_an_id_is_contested_if_salt_denied_another_key(salt_side, keys, contested):
    salt_side._listed = lambda: keys
    assert salt_side.contested("web-1") is contested


@pytest.mark.parametrize(
    ("keys", "accepted"),
    [
        pytest.param({"minions": ["web-1"]}, True, id="accepted"),
        pytest.param({"minions_pre": ["web-1"], "minions_denied": ["web-1"]}, False, id="pending and denied"),
        pytest.param({}, False, id="unknown"),
    ],
)
def test_a_key_is_accepted_if_salt_lists_it(salt_side, keys, accepted):
    salt_side._listed = lambda: keys
    assert salt_side.accepted("web-1") is accepted


def test_what_a_minion_told_the_mine_is_forgotten_with_its_key(opts):
    cache = salt.cache.factory(opts)
    for minion_id in ("web-1", "web-2"):
        cache.store("mine", minion_id, {"network.ip_addrs": ["10.0.0.7"]})
    Keys(opts).forget("web-1")
    assert cache.list("mine") == ["web-2"]


@pytest.mark.parametrize("left", ["nothing", "a socket that nobody serves"])
def test_a_master_that_is_down_raises_what_to_do(opts, tmp_path, left):
    if left != "nothing":
        with socket.socket(socket.AF_UNIX) as before:
            before.bind(str(tmp_path / "master_event_pub.ipc"))
    with pytest.raises(CommandExecutionError, match=f"no Salt master listens in {tmp_path} .*start salt-master"):
        Minions({**opts, "sock_dir": str(tmp_path), "ipc_mode": "ipc"})


def test_how_a_machine_finds_its_master(opts):
    config = minions.machine_config({**opts, "ret_port": 1, "publish_port": 2, "transport": "zeromq"}, "10.0.0.1")
    assert (config["master"], config["master_port"], config["publish_port"]) == ("10.0.0.1", 1, 2)
    assert config["master_finger"] == pem_finger(f"{opts['pki_dir']}/master.pub", sum_type=config["hash_type"])
    assert minions.machine_config({**opts, "transport": "tcp"}, "x")["transport"] == "tcp"


def test_an_error_in_the_pillar_is_told_once_and_without_a_traceback(opts, monkeypatch):
    """Salt logs it with a traceback, which belongs into the log file."""
    shown, logged = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    handlers = [logging.StreamHandler(shown), logging.StreamHandler(logged)]
    for handler in handlers:
        handler.setLevel(logging.WARNING)
        logging.root.addHandler(handler)
    try:
        write(opts, top="base: {'*': [web]}", web="rack: {{ grains['rack'] }}")
        with pytest.raises(SaltInvocationError, match="has no attribute 'rack'; line 1") as error:
            minions.pillar(opts, "web-1", {"id": "web-1"})
        assert "Traceback" not in str(error.value) and shown.getvalue() == ""
        assert "Traceback" in logged.getvalue()
        monkeypatch.setattr("salt.utils.path.which", lambda name: name and "/bin/false")
        opts["gpg_decrypt_must_succeed"] = True
        opts["gpg_keydir"] = "/nowhere"
        write(opts, web="#!yaml|gpg\nrack: |\n  -----BEGIN PGP MESSAGE-----\n\n  AAAA\n  -----END PGP MESSAGE-----\n")
        with pytest.raises(SaltInvocationError, match="Could not decrypt"):
            minions.pillar(opts, "web-1", {"id": "web-1"})
        assert shown.getvalue() == "" and "Could not decrypt" in logged.getvalue(), "a warning says the same"
        opts["ext_pillar"] = [{"nobody_has_this": "x"}]
        write(opts, web="rack: 1")
        assert minions.pillar(opts, "web-1", {"id": "web-1"})["rack"] == 1
        assert "nobody_has_this" in shown.getvalue(), "what is no error of the pillar is shown"
        shown.truncate(0), shown.seek(0)
        logging.getLogger("salt.other").error("later")
        assert shown.getvalue() == "later\n"
    finally:
        for handler in handlers:
            logging.root.removeHandler(handler)


@pytest.mark.parametrize(
    ("changes", "name", "phrase"),
    [
        pytest.param({}, "master.pem", None, id="a master"),
        pytest.param({"key_pass": "sesame"}, "master.pem", "sesame", id="its key has a passphrase"),
        pytest.param({"cluster_id": "one"}, "cluster/cluster.pem", None, id="masters of a cluster share a key"),
        pytest.param({"cluster_id": "one", "cluster_key_pass": "s"}, "cluster/cluster.pem", "s", id="a passphrase"),
    ],
)
def test_the_master_signs_with_the_key_that_minions_have(opts, changes, name, phrase):
    opts = {**opts, "cluster_pki_dir": f"{opts['pki_dir']}/cluster", **changes}
    pem = Path(opts["pki_dir"], name)
    pem.parent.mkdir(exist_ok=True)
    pem.write_bytes(b"the key")
    assert minions.private_key(opts) == (b"the key", phrase)


def test_a_key_that_cannot_be_read_is_named(opts):
    with pytest.raises(CommandExecutionError, match="the master's key .*/pki/master.pem cannot be read"):
        minions.private_key(opts)
