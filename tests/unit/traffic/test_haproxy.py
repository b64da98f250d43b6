"""The commands that the adapter sends, to a pretended HAProxy; the real one is in tests/integration."""

from __future__ import annotations

import re

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from support.traffic_contract import TrafficContract

from saltext.immutable import traffic as traffics
from saltext.immutable.traffic import TrafficStatus, haproxy, haproxy_socket
from saltext.immutable.traffic.haproxy import HAProxy

TITLES = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_check_result"


class Pretended:
    """One HAProxy: its servers, their statistics, and the commands that it got."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.admin: dict[str, int] = {"static": 0}
        self.down: set[str] = set()
        self.stats: dict[str, tuple[str, int, int]] = {}
        self.address: dict[str, str] = {}
        self.sent: list[str] = []
        self.broken = ""
        self.busy = 0
        """How often the deletion of a server still fails."""

    def command(self, *words: str) -> str:
        if not all(map(haproxy_socket.WORD.fullmatch, words)):
            raise CommandExecutionError("cannot be part of a command")
        self.sent.append(" ".join(words))
        if self.broken and re.search(self.broken, self.sent[-1]):
            raise CommandExecutionError(f"HAProxy at {self.socket} is broken")
        verb = getattr(self, f"_{words[0]}")
        return verb(*words[1:]) or ""

    def _show(self, what, *rest):
        if what == "stat":
            lines = ["# pxname,svname,scur,qcur,check_status,last_chk,"]
            lines += [f'web,{name},{now},{queue},{check},"a, b",' for name, (check, now, queue) in self.stats.items()]
        else:
            rows = [
                f"3 web 1 {name} {self.address.get(name, '-')} {0 if name in self.down else 2} {bits} 0"
                for name, bits in self.admin.items()
            ]
            lines = ["1", TITLES, *rows]
        return "\n".join(lines)

    def _add(self, _, server, where, *more):
        name = server.partition("/")[2]
        if name in self.admin:
            raise CommandExecutionError("Already exists")
        self.admin[name] = 1
        self.address[name] = where

    def _set(self, _, server, what, *value):
        name = self._known(server)
        if what == "state":
            self.admin[name] = {"ready": 0, "drain": 8, "maint": 1}[value[0]]
        else:
            self.address[name] = value[0]

    def _enable(self, _, server):
        self._known(server)

    def _shutdown(self, *words):
        self.busy -= 1

    def _del(self, _, server):
        name = self._known(server)
        if self.admin[name] != 1 or self.busy > 0:
            raise CommandExecutionError("Server still has connections")
        del self.admin[name]

    def _known(self, server):
        name = server.partition("/")[2]
        if name not in self.admin:
            raise CommandExecutionError("No such server")
        return name


def pretended(sockets="/run/a", **more):
    """Return an adapter and the HAProxies behind it."""
    behind = []

    def connected(socket):
        behind.append(Pretended(socket))
        return behind[-1]

    return HAProxy({"socket": sockets, "backend": "web", **more}, {}, connected), behind


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only while somebody sleeps."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    found = Clock()
    monkeypatch.setattr(haproxy, "time", found)
    return found


class TestContract(TrafficContract):
    @pytest.fixture
    def traffic(self):
        return pretended()[0]

    @pytest.fixture
    def addresses(self):
        return ["10.0.0.2", "10.0.0.3", "10.0.0.4"]


class TestContractOfTwo(TestContract):
    @pytest.fixture
    def traffic(self):
        return pretended(["/run/a", "10.0.0.1:9999"])[0]


def test_the_pillar_finds_it_by_its_name():
    assert isinstance(traffics.load("haproxy", {"socket": "/run/a", "backend": "web"}, {}), HAProxy)


def test_numbers_of_a_server_are_no_counts_of_machines():
    found, (one,) = pretended(options={"slowstart": 120000, "maxconn": 200000, "inter": 300000})
    found.attach("web-1", "10.0.0.2")
    assert any("check slowstart 120000 maxconn 200000 inter 300000" in command for command in one.sent)


def test_a_new_server_is_closed_until_it_is_ready_and_carries_its_options():
    found, (one,) = pretended(port=8080, options={"maxconn": 50, "send-proxy": True})
    found.attach("web-1", "10.0.0.2")
    sent = [command for command in one.sent if not command.startswith("show")]
    assert sent == [
        "add server web/immutable:web-1 10.0.0.2:8080 check maxconn 50 send-proxy",
        "set server web/immutable:web-1 addr 10.0.0.2 port 8080",
        "enable health web/immutable:web-1",
        "set server web/immutable:web-1 state ready",
    ]


def test_without_a_check_none_is_enabled():
    found, (one,) = pretended(check=False)
    found.attach("web-1", "2001:db8::2")
    assert "add server web/immutable:web-1 [2001:db8::2]:80" in one.sent
    assert not [command for command in one.sent if "health" in command]


@pytest.mark.parametrize(
    ("bits", "down", "stats", "status"),
    [
        pytest.param(0, False, ("L7OK", 2, 1), TrafficStatus("in", True, 3), id="its queue counts"),
        pytest.param(0, False, ("INI", 0, 0), TrafficStatus("in", None, 0), id="no result before the first check"),
        pytest.param(0, False, ("* L7OK", 0, 0), TrafficStatus("in", True, 0), id="the last result holds in a check"),
        pytest.param(0, False, ("", 0, 0), TrafficStatus("in", None, 0), id="no check, no verdict"),
        pytest.param(0, True, ("L4CON", 0, 0), TrafficStatus("in", False, 0), id="down is told apart from drained"),
        pytest.param(8, True, ("L4TOUT", 4, 0), TrafficStatus("draining", False, 4), id="drained and down"),
        pytest.param(16, False, ("L4OK", 0, 0), TrafficStatus("draining", True, 0), id="drained by whom it tracks"),
        pytest.param(1, True, ("L4OK", 0, 0), TrafficStatus("out", None, 0), id="maintenance"),
        pytest.param(4, True, ("", 0, 0), TrafficStatus("out", None, 0), id="maintenance by config"),
        pytest.param(9, True, ("", 1, 0), TrafficStatus("out", None, 1), id="maintenance outdoes draining"),
    ],
)
def test_the_state_of_a_server_is_read(bits, down, stats, status):
    found, (one,) = pretended()
    name = "immutable:web-1"
    one.admin[name], one.stats[name] = bits, stats
    one.down = {name} if down else set()
    assert found.status() == {"web-1": status}


def test_a_server_that_has_no_statistics_yet_has_no_sessions():
    found, (one,) = pretended()
    one.admin["immutable:web-1"] = 0
    assert found.status() == {"web-1": TrafficStatus("in", None, 0)}


def test_another_list_than_the_known_one_is_an_error():
    found, (one,) = pretended()
    one._show = lambda *rest: "2\n# something else"
    with pytest.raises(CommandExecutionError, match="unknown format"):
        found.status()


def test_servers_of_others_are_neither_shown_nor_touched():
    found, (one,) = pretended()
    before = dict(one.admin)
    found.drain("static")
    found.remove("static")
    assert (found.status(), one.admin) == ({}, before)
    assert not [command for command in one.sent if "web/static" in command]


def test_two_fleets_in_one_backend_have_each_their_prefix():
    found, (one,) = pretended(prefix="shop")
    one.admin["immutable:web-1"] = 0
    found.attach("web-2", "10.0.0.2")
    assert set(found.status()) == {"web-2"}
    assert "shop:web-2" in one.admin


def test_of_several_haproxies_the_state_with_the_least_traffic_counts():
    found, (one, other) = pretended(["/run/a", "/run/b"])
    for number in range(4):
        found.attach(f"web-{number}", "10.0.0.2")
    one.admin["immutable:web-1"] = 8
    del other.admin["immutable:web-2"]
    for each in (one, other):
        each.stats["immutable:web-0"] = ("L4OK", 2, 0)
    one.stats["immutable:web-3"], other.stats["immutable:web-3"] = ("L4OK", 0, 0), ("L4CON", 0, 0)
    other.down = {"immutable:web-3"}
    assert found.status() == {
        "web-0": TrafficStatus("in", True, 4),
        "web-1": TrafficStatus("draining", None, 0),
        "web-2": TrafficStatus("out", None, 0),
        "web-3": TrafficStatus("in", False, 0),
    }


def test_all_haproxies_are_called_even_if_one_fails():
    found, (one, other) = pretended(["/run/a", "/run/b"])
    one.broken = "."
    with pytest.raises(CommandExecutionError, match="/run/a"):
        found.attach("web-1", "10.0.0.2")
    assert other.admin["immutable:web-1"] == 0
    with pytest.raises(CommandExecutionError, match="/run/a"):
        found.status()


def test_what_was_left_half_done_is_done_by_the_next_call():
    found, (one,) = pretended()
    one.broken = "state ready"
    with pytest.raises(CommandExecutionError):
        found.attach("web-1", "10.0.0.2")
    assert found.status()["web-1"].state == "out"
    one.broken = ""
    found.attach("web-1", "10.0.0.2")
    assert found.status()["web-1"].state == "in"


def test_a_refused_server_is_an_error():
    found, (one,) = pretended()
    one.broken = "add server"
    with pytest.raises(CommandExecutionError):
        found.attach("web-1", "10.0.0.2")
    assert found.status() == {}


def test_sessions_are_shut_down_when_a_server_is_removed(clock):
    found, (one,) = pretended()
    found.attach("web-1", "10.0.0.2")
    one.busy = 3
    found.remove("web-1")
    assert found.status() == {}
    assert one.sent.count("shutdown sessions server web/immutable:web-1") == 3


def test_a_server_that_cannot_be_deleted_is_an_error_after_a_while_and_gets_no_sessions(clock):
    found, (one,) = pretended()
    found.attach("web-1", "10.0.0.2")
    one.busy = 10**9
    with pytest.raises(CommandExecutionError, match="still has connections"):
        found.remove("web-1")
    assert haproxy.DELETE_WITHIN <= clock.now < haproxy.DELETE_WITHIN + 0.2
    assert found.status()["web-1"].state == "out"


@pytest.mark.parametrize("bad", ["web-1; disable frontend f", "web-1\nquit", "", "web 1", "-x", "ä", "web-1\n"])
def test_a_minion_id_is_no_place_for_further_commands(bad):
    found, (one,) = pretended()
    for call in (found.drain, found.remove, lambda minion_id: found.attach(minion_id, "10.0.0.2")):
        with pytest.raises(CommandExecutionError, match="minion id|empty|printed"):
            call(bad)
    assert not [command for command in one.sent if not command.startswith("show")]


@pytest.mark.parametrize("bad", ["10.0.0.2; quit", "web.example.com", "", "10.0.0.2:80", "fe80::1%eth0;x", "/run/sock"])
def test_an_address_is_an_address(bad):
    found, (one,) = pretended()
    with pytest.raises(CommandExecutionError, match="address|cannot be part"):
        found.attach("web-1", bad)
    assert not [command for command in one.sent if ";" in command]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "traffic:haproxy: socket is missing; write socket: /run/haproxy/admin.sock"),
        ({}, "traffic:haproxy: backend is missing; write backend: web"),
        ({"socket": "run/a"}, "traffic:haproxy:socket: 'run/a' is not a socket; write an absolute path, or host:port"),
        ({"socket": "lb1:0"}, "traffic:haproxy:socket: 'lb1:0' is not a socket"),
        ({"socket": "lb1:65536"}, "traffic:haproxy:socket: 'lb1:65536' is not a socket"),
        ({"socket": []}, "traffic:haproxy:socket: must name a socket"),
        ({"socket": ["/a", "/a"]}, "traffic:haproxy:socket: names a socket twice"),
        ({"socket": "/" + "a" * 107}, "is longer than the 107 bytes that a socket's path may have"),
        ({"socket": 9999}, "traffic:haproxy:socket: must be text, not int 9999"),
        ({"backend": "web; quit"}, "traffic:haproxy:backend: 'web; quit' is not a name"),
        ({"backend": "web/x"}, "traffic:haproxy:backend: 'web/x' is not a name"),
        ({"port": 0}, "traffic:haproxy:port: must be a whole number from 1 to 65535, not int 0"),
        ({"port": "80"}, "traffic:haproxy:port: must be a whole number"),
        ({"check": "yes"}, "traffic:haproxy:check: must be true or false"),
        ({"prefix": "a:b"}, "traffic:haproxy:prefix: 'a:b' must not hold ':'"),
        ({"prefix": "a\n"}, "traffic:haproxy:prefix: 'a\\n' holds characters that cannot be printed"),
        ({"options": {"check": True}}, "traffic:haproxy:options: check is not allowed here"),
        ({"options": {"agent-check": True}}, "traffic:haproxy:options: agent-check is not allowed here"),
        ({"options": {"maxconn": float("nan")}}, "traffic:haproxy:options: must be a whole number"),
        ({"options": {"maxconn": 10**400}}, "traffic:haproxy:options: must be a whole number from 0 to 2147483647"),
        ({"options": {"maxconn": -1}}, "traffic:haproxy:options: must be a whole number from 0 to 2147483647"),
        ({"options": {"maxconn": [1]}}, "traffic:haproxy:options: must be a whole number"),
        ({"options": {"maxconn": "9" * 5000}}, "traffic:haproxy:options: 99999999999999999999... has 5000 characters"),
        ({"options": {"maxconn": None}}, "traffic:haproxy:options: maxconn must have a value"),
        ({"options": {"maxconn": "1;quit"}}, "'1;quit' cannot be a word of a server line"),
        ({"options": {"max conn": 1}}, "'max conn' cannot be a word of a server line"),
        ({"options": {"sni": "<<"}}, "'<<' cannot be a word of a server line"),
        ({"options": ["maxconn"]}, "traffic:haproxy:options: must be a mapping"),
        ({"balance": "roundrobin"}, "traffic:haproxy:balance: no such key"),
    ],
)
def test_wrong_settings_are_errors_that_say_what_to_write(settings, sentence):
    whole = {"socket": "/run/a", "backend": "web", **settings} if settings else {}
    with pytest.raises(SaltInvocationError) as caught:
        HAProxy(whole, {})
    assert sentence in str(caught.value)


@pytest.mark.parametrize("socket", ["/run/haproxy/admin.sock", "lb1.example.com:9999", "[::1]:9999", "10.0.0.1:1"])
def test_sockets_are_paths_or_places(socket):
    assert haproxy.read({"socket": socket, "backend": "web"}).sockets == (socket,)


class Answering(haproxy_socket.Runtime):
    """A runtime with a fixed answer."""

    def __init__(self, answer):
        super().__init__("/run/a")
        self.answer, self.lines = answer, []

    def _answer(self, line):
        self.lines.append(line)
        return self.answer


@pytest.mark.parametrize("answer", ["\n\n", "\n[6]: New server registered.\n\n", "\n[4]: no need to change it\n\n"])
def test_notices_and_warnings_are_no_refusals(answer):
    assert Answering(answer).command("set", "server", "web/x", "state", "ready") == answer.strip()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("\n[3]: No such backend.\n", "No such backend; write that backend into haproxy.cfg"),
        ("\n[3]: Can't find backend.\n\n", "Can't find backend; write that backend into haproxy.cfg"),
        ("\n[3]: Permission denied\n\n", "Permission denied; write `level admin`"),
        ("\n[3]: Backend must use a dynamic load balancing to support dynamic servers.\n", "`balance roundrobin`"),
        ("\n[6]: Unknown command, but maybe one of the following\n  del acl\n\n", "HAProxy 2.6 or newer"),
        ("Unknown command. Please enter one of the following\n", "HAProxy 2.6 or newer"),
        ("\n[3]: something else\n\n", "`add server web/x`: something else"),
    ],
)
def test_a_refusal_is_an_error_that_says_what_to_do(answer, sentence):
    with pytest.raises(CommandExecutionError) as caught:
        Answering(answer).command("add", "server", "web/x")
    assert sentence in str(caught.value)
    assert "HAProxy at /run/a refuses" in str(caught.value)


@pytest.mark.parametrize("word", ["a;b", "a b", "a\n", "", "<<", "a'b", 'a"b', "a\\b", "a\tb", "ä"])
def test_a_word_cannot_hold_another_command(word):
    connection = Answering("")
    with pytest.raises(CommandExecutionError, match="cannot be part of a command"):
        connection.command("set", "server", word)
    assert connection.lines == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "is closed to the master's user; write `mode 660 group"),
        (FileNotFoundError(2, "No such file or directory"), "no HAProxy answers at /run/a"),
        (TimeoutError(), "did not answer within 5 s"),
    ],
)
def test_a_haproxy_that_does_not_answer_is_named(error, sentence, monkeypatch):
    def connected(self):
        raise error

    monkeypatch.setattr(haproxy_socket.Runtime, "_connected", connected)
    with pytest.raises(CommandExecutionError) as caught:
        haproxy_socket.Runtime("/run/a").command("show", "info")
    assert sentence in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("what", ["servers state", "stat"])
def test_an_answer_that_breaks_off_is_an_error(what):
    found, (behind,) = pretended()
    found.attach("web-1", "10.0.0.2")
    behind.stats["immutable:web-1"] = ("L7OK", 1, 0)
    whole = behind.command

    def torn(*words):
        answer = whole(*words)
        last = answer.rindex("\n")
        return answer[: last + 12] if " ".join(words[1:]).startswith(what) else answer

    found._backends[0]._command = torn
    with pytest.raises(CommandExecutionError, match="the answer of HAProxy at /run/a is cut off"):
        found.status()
