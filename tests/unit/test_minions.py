"""Salt seen from the master: what a pillar and a health check may answer."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import salt.config
from salt.exceptions import CommandExecutionError, SaltInvocationError, SaltReqTimeoutError
from salt.utils.crypt import pem_finger

from saltext.immutable import minions
from saltext.immutable.minions import Minions, NoAnswer
from saltext.immutable.spec.model import FunctionCheck, HttpCheck


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
    """What Salt logs at error level it would say again after pytest's last line."""
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
    ("files", "said"),
    [
        pytest.param({"web": "a: {"}, "(?s)pillar of web-1 does not compile.*web", id="broken YAML"),
        pytest.param({"web": "a: {{ nothing.at.all }}"}, "undefined", id="broken Jinja"),
        pytest.param({}, "(?s)Specified SLS.*web.*not available", id="a missing SLS"),
    ],
)
@pytest.mark.usefixtures("unlogged")
def test_a_pillar_with_errors_raises_them(opts, files, said):
    write(opts, top="base: {'*': [web]}", **files)
    with pytest.raises(SaltInvocationError, match=said):
        minions.pillar(opts, "web-1", {"id": "web-1"})


def test_a_broken_definition_is_named_by_its_path(opts):
    write(opts, top="base: {'*': [web]}", web="immutable: {recipes: {web: {form: {debian: bookworm}}}}")
    with pytest.raises(SaltInvocationError, match="immutable:recipes:web"):
        minions.definitions(opts)


def test_the_pillar_of_another_id_can_hold_the_definitions(opts):
    write(opts, top="base: {definitions: [web]}", web="immutable: {recipes: {web: {from: {debian: bookworm}}}}")
    with pytest.raises(SaltInvocationError, match="the pillar has no such key"):
        minions.definitions(opts)
    assert set(minions.definitions({**opts, "immutable": {"pillar_id": "definitions"}}).recipes) == {"web"}


# Health over HTTP


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/200")
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
        """Say nothing."""


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
    return object.__new__(Minions)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("200", None, id="200 is healthy"),
        pytest.param("204", None, id="so is any 2xx"),
        pytest.param("moved", None, id="a way to something healthy is healthy"),
        pytest.param("500", "answers 500", id="500 is ill"),
        pytest.param("404", "answers 404", id="404 is ill"),
        pytest.param("503?id={minion_id}", "503?id=web-1 answers 503", id="the minion id is filled in"),
    ],
)
def test_http(salt_side, server, path, why):
    found = salt_side.check("web-1", server, HttpCheck("http://{address}/" + path), 5)
    assert found is None if why is None else why in found


def test_nobody_listens_is_ill(salt_side):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert "refused" in str(salt_side.check("web-1", address, HttpCheck("http://{address}/"), 5))


@pytest.mark.parametrize(
    ("path", "patience", "within"),
    [
        pytest.param("hangs", {"timeout": 0.1}, 5, id="silence, for as long as the check says"),
        pytest.param("hangs", {}, 0.1, id="silence, for as long as there is time"),
        pytest.param("nonsense", {}, 5, id="what is no HTTP"),
    ],
)
def test_what_is_no_answer_is_neither_well_nor_ill(salt_side, server, path, patience, within):
    with pytest.raises(NoAnswer, match=path):
        salt_side.check("web-1", server, HttpCheck("http://{address}/" + path, **patience), within)


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
        pytest.param(False, "service.status nginx says False", id="false is ill"),
        pytest.param(None, "service.status nginx says None", id="nothing is ill"),
        pytest.param(CommandExecutionError("web-1: service.status: boom"), "boom", id="a failure is ill"),
    ],
)
def test_functions(salt_side, outcome, why):
    salt_side._jobs = Jobs(outcome)
    found = salt_side.check("web-1", None, FunctionCheck("service.status", ("nginx",)), 5)
    assert found is None if why is None else why in found


def test_silence_is_neither_well_nor_ill(salt_side):
    salt_side._jobs = Jobs(NoAnswer("web-1 does not answer"))
    with pytest.raises(NoAnswer):
        salt_side.check("web-1", None, FunctionCheck("test.ping"), 5)


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        pytest.param({"web-1": {"ret": True, "retcode": 0}}, True, id="a return"),
        pytest.param({"web-1": {"ret": None}}, None, id="a function may return nothing"),
        pytest.param({"web-1": {"ret": "no such unit", "retcode": 1}}, "no such unit", id="a failure"),
        pytest.param({}, NoAnswer, id="no return"),
        pytest.param({"web-1": False}, NoAnswer, id="no connection"),
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

    monkeypatch.setattr("salt.client.LocalClient", Client)
    jobs = minions.Jobs(opts)
    if outcome is NoAnswer:
        with pytest.raises(NoAnswer):
            jobs.run("web-1", "test.ping")
    elif isinstance(outcome, str):
        with pytest.raises(CommandExecutionError, match=outcome):
            jobs.run("web-1", "test.ping")
    else:
        assert jobs.run("web-1", "test.ping") == outcome


# Events


@pytest.mark.parametrize(
    ("said", "event"),
    [
        pytest.param([("salt/minion/web-1/start", {})], ["started"], id="a start"),
        pytest.param([("salt/job/1/ret/web-1", {})], [], id="anything else"),
        pytest.param([("salt/auth", {"id": "web-1", "pub": "A", "act": "accept"})], [], id="a key is accepted"),
        pytest.param([("salt/auth", {"id": "web-1", "act": "denied"})], ["denied"], id="another key is denied"),
        pytest.param([("salt/auth", "denied"), ("salt/auth", {"act": "denied"})], [], id="whatever a minion may send"),
    ],
)
def test_events(salt_side, said, event):
    class Bus:
        def get_event(self, **_: Any) -> Any:
            return dict(zip(("tag", "data"), said.pop(0), strict=True)) if said else None

    said = list(said)
    salt_side._bus = Bus()
    assert [found.kind for found in salt_side.poll()] == event


def test_how_a_machine_finds_its_master(opts):
    config = minions.machine_config({**opts, "ret_port": 1, "publish_port": 2, "transport": "zeromq"}, "10.0.0.1")
    assert (config["master"], config["master_port"], config["publish_port"]) == ("10.0.0.1", 1, 2)
    assert config["master_finger"] == pem_finger(f"{opts['pki_dir']}/master.pub", sum_type=config["hash_type"])
    assert minions.machine_config({**opts, "transport": "tcp"}, "x")["transport"] == "tcp"
