"""A real HAProxy, and small web servers on loopback addresses in place of machines."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError, SaltException
from support.estate import wait_for
from support.haproxy import Balancer, loopback
from support.traffic_contract import FIRST, SECOND, TrafficContract, state

from saltext.immutable.traffic import haproxy_socket
from saltext.immutable.traffic.haproxy import HAProxy

PORT = 8001
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Page(BaseHTTPRequestHandler):
    """Says whose page it is, ``/slow`` after a while; connections stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1.5)
        if self.path == "/check" and self.server.sick:
            self.send_error(500)
            return
        text = self.server.server_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        pass


class Machine(ThreadingHTTPServer):
    """One web server on its own address; when it goes, so do its connections."""

    daemon_threads = True
    block_on_close = False
    sick = False

    def __init__(self, address: str) -> None:
        super().__init__((address, PORT), Page)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def process_request(self, request, client_address) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address) -> None:
        pass

    def destroy(self) -> None:
        """End as a machine does that is destroyed: whoever still talks to it is cut off."""
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(tmp_path_factory) -> Iterator[None]:
    """Hold this file to what it starts, in place of the estate, which it does not need."""
    yield
    home = str(tmp_path_factory.getbasetemp()).encode()
    left = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            left.append(file.read_bytes())
    assert [command for command in left if b"haproxy" in command and home in command] == []


@pytest.fixture
def machines(tmp_path) -> Iterator[list[Machine]]:
    """Eight machines, the nth at the nth address."""
    home = loopback(str(tmp_path)).rpartition(".")[0]
    with ExitStack() as undo:
        found = [Machine(f"{home}.{number}") for number in range(201, 209)]
        for machine in found:
            undo.callback(machine.destroy)
        yield found


@pytest.fixture
def addresses(machines) -> list[str]:
    return [machine.server_address[0] for machine in machines]


@pytest.fixture
def balancer(tmp_path) -> Iterator[Balancer]:
    with Balancer(tmp_path / "lb", "option httpchk GET /check") as found:
        yield found


def adapter(*balancers: Balancer, **more) -> HAProxy:
    settings = {"socket": [one.socket for one in balancers], "backend": "web", "port": PORT}
    return HAProxy({**settings, "options": {"inter": "100ms"}, **more}, {})


@pytest.fixture
def traffic(balancer) -> HAProxy:
    return adapter(balancer)


def visit(url: str) -> str:
    with DIRECT.open(url, timeout=10) as answer:
        return answer.read().decode()


class Visitors:
    """Eight visitors that ask without end: half of them on one connection, half on a new one each time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: Counter[str] = Counter()
        self.lost: list[str] = []
        self._stop = threading.Event()

    @contextmanager
    def __call__(self) -> Iterator[Visitors]:
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(act) for act in (self._staying, self._coming) * 4]
            try:
                yield self
            finally:
                self._stop.set()
                for call in calls:
                    call.result()

    def _coming(self) -> None:
        while not self._stop.is_set():
            self._count(visit, self.url)

    def _staying(self) -> None:
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)

        def ask() -> str:
            connection.request("GET", "/")
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, f"{answer.status} {text}"
            return text

        connection.connect()
        connection.auto_open = 0  # a connection that is lost is a visitor that is lost
        while not self._stop.is_set():
            if not self._count(ask):
                return
        connection.close()

    def _count(self, ask, *words) -> bool:
        try:
            self.seen[ask(*words)] += 1
        except (OSError, http.client.HTTPException, AssertionError) as err:
            self.lost.append(f"{err!r}")
            return False
        return True


class TestContract(TrafficContract):
    """One HAProxy."""


class TestContractOfTwo(TrafficContract):
    """Two HAProxies, one of them by the network."""

    @pytest.fixture
    def traffic(self, balancer, tmp_path) -> Iterator[HAProxy]:
        with Balancer(tmp_path / "other") as other:
            yield adapter(balancer, other, socket=[balancer.socket, other.remote])


def test_visitors_come_to_those_that_are_in_only(traffic, balancer, addresses):
    with pytest.raises(urllib.error.HTTPError, match="503"):
        visit(balancer.url)
    for minion_id, address in ((FIRST, addresses[0]), (SECOND, addresses[1])):
        traffic.attach(minion_id, address)
    assert {visit(balancer.url) for _ in range(8)} == set(addresses[:2])
    traffic.drain(FIRST)
    assert {visit(balancer.url) for _ in range(8)} == {addresses[1]}
    traffic.attach(FIRST, addresses[0])
    traffic.remove(SECOND)
    assert {visit(balancer.url) for _ in range(8)} == {addresses[0]}
    traffic.attach(FIRST, addresses[2])
    assert {visit(balancer.url) for _ in range(8)} == {addresses[2]}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="as HAProxy has it: no connection waits"),
        pytest.param({"pool-max-conn": 20, "pool-purge-delay": "5s", "pool-low-conn": 20}, id="connections wait"),
    ],
)
def test_no_visitor_is_lost_while_every_machine_is_replaced(balancer, machines, options):
    traffic = adapter(balancer, options={"inter": "100ms", **options})
    names = [f"web-{number}.example.com" for number in range(len(machines))]
    serving = list(zip(names, machines, strict=True))
    for name, machine in serving[:3]:
        traffic.attach(name, machine.server_address[0])
    with Visitors(balancer.url)() as visitors:
        for old, new in zip(serving, serving[3:], strict=False):
            traffic.attach(new[0], new[1].server_address[0])
            wait_for(lambda new=new: visitors.seen[new[1].server_address[0]] > 20, 20)
            traffic.drain(old[0])
            wait_for(lambda old=old: traffic.status()[old[0]].sessions == 0, 20)
            traffic.remove(old[0])
            old[1].destroy()
    assert visitors.lost == []
    assert all(visitors.seen[machine.server_address[0]] for machine in machines)
    assert set(traffic.status()) == set(names[5:])


def test_a_request_under_way_is_a_session_and_ends_well_while_its_machine_is_drained(traffic, balancer, addresses):
    traffic.attach(FIRST, addresses[0])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(visit, f"{balancer.url}slow")
        wait_for(lambda: traffic.status()[FIRST].sessions == 1, 5)
        traffic.drain(FIRST)
        assert traffic.status()[FIRST].state == "draining"
        assert traffic.status()[FIRST].sessions == 1
        assert call.result(10) == addresses[0]
    wait_for(lambda: traffic.status()[FIRST].sessions == 0, 5)


def test_a_machine_that_is_removed_lets_go_of_its_visitors_at_once(traffic, balancer, addresses):
    traffic.attach(FIRST, addresses[0])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(visit, f"{balancer.url}slow")
        wait_for(lambda: traffic.status()[FIRST].sessions == 1, 5)
        began = time.monotonic()
        traffic.remove(FIRST)
        assert time.monotonic() - began < 1.0
        assert traffic.status() == {}
        with pytest.raises(urllib.error.HTTPError, match="502|503"):
            call.result(10)


def test_their_own_check_is_told(traffic, machines, addresses):
    traffic.attach(FIRST, addresses[0])
    traffic.attach(SECOND, addresses[1])
    wait_for(lambda: all(one.up for one in traffic.status().values()), 5)
    machines[0].sick = True
    wait_for(lambda: traffic.status()[FIRST].up is False, 5)
    traffic.drain(FIRST)
    assert (traffic.status()[FIRST].state, traffic.status()[FIRST].up) == ("draining", False)
    machines[0].sick = False
    wait_for(lambda: traffic.status()[FIRST].up is True, 5)
    assert (state(traffic, FIRST), traffic.status()[SECOND].up) == ("draining", True)


def test_without_a_check_there_is_no_verdict(balancer, addresses):
    traffic = adapter(balancer, check=False)
    traffic.attach(FIRST, addresses[0])
    assert visit(balancer.url) == addresses[0]
    assert (state(traffic, FIRST), traffic.status()[FIRST].up) == ("in", None)


def test_after_a_reload_nobody_stands_until_attached_again(traffic, balancer, addresses):
    traffic.attach(FIRST, addresses[0])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(visit, f"{balancer.url}slow")
        wait_for(lambda: traffic.status()[FIRST].sessions == 1, 5)
        balancer.reload()
        assert traffic.status() == {}
        traffic.drain(FIRST)
        traffic.remove(FIRST)
        traffic.attach(FIRST, addresses[0])
        assert visit(balancer.url) == addresses[0]
        assert call.result(10) == addresses[0], "who was being served when HAProxy was reloaded is served to the end"


def test_a_server_in_the_config_under_our_name_outlives_a_reload_and_can_be_removed(tmp_path, addresses):
    with Balancer(tmp_path / "lb", f"server immutable:{FIRST} {addresses[0]}:{PORT} check inter 100ms") as balancer:
        traffic = adapter(balancer)
        assert state(traffic, FIRST) == "in"
        traffic.attach(FIRST, addresses[0])
        balancer.reload()
        assert state(traffic, FIRST) == "in"
        assert visit(balancer.url) == addresses[0]
        traffic.drain(FIRST)
        traffic.remove(FIRST)
        assert traffic.status() == {}


def test_servers_of_others_stay_as_they_are(tmp_path, addresses):
    with Balancer(tmp_path / "lb", f"server pet {addresses[0]}:{PORT}") as balancer:
        traffic = adapter(balancer)
        for call in (traffic.drain, traffic.remove):
            call("pet")
        assert traffic.status() == {}
        assert visit(balancer.url) == addresses[0]
        traffic.attach("pet", addresses[1])
        assert {visit(balancer.url) for _ in range(8)} == set(addresses[:2])
        traffic.remove("pet")
        assert visit(balancer.url) == addresses[0]


def test_two_fleets_share_a_backend(balancer, addresses):
    ours, theirs = adapter(balancer), adapter(balancer, prefix="canary")
    ours.attach(FIRST, addresses[0])
    theirs.attach(SECOND, addresses[1])
    assert (set(ours.status()), set(theirs.status())) == ({FIRST}, {SECOND})
    assert {visit(balancer.url) for _ in range(8)} == set(addresses[:2])


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [
        ("web; disable frontend visitors", "is not a name in HAProxy"),
        ("nobody", "refuses `show servers state nobody`: Can't find backend; write that backend into haproxy.cfg"),
        ("fixed", "must use a dynamic load balancing.*; write `balance roundrobin`"),
    ],
)
def test_a_backend_that_cannot_take_machines_is_named(tmp_path, backend, sentence):
    fixed = "backend fixed\n    balance static-rr\n"
    with Balancer(tmp_path / "lb", rest=fixed) as balancer, pytest.raises(SaltException, match=sentence):
        adapter(balancer, backend=backend).attach(FIRST, "127.0.0.2")


def test_a_socket_without_the_right_says_what_it_needs(balancer, addresses):
    limited = adapter(balancer, socket=balancer.operator)
    with pytest.raises(CommandExecutionError, match="Permission denied; write `level admin`"):
        limited.attach(FIRST, addresses[0])
    adapter(balancer).attach(FIRST, addresses[0])
    with pytest.raises(CommandExecutionError, match="level admin"):
        limited.drain(FIRST)
    with pytest.raises(CommandExecutionError, match="level admin"):
        limited.remove(FIRST)


def test_an_option_that_haproxy_does_not_know_is_named(balancer, addresses):
    traffic = adapter(balancer, options={"maxcon": 5})
    with pytest.raises(CommandExecutionError, match="unknown keyword 'maxcon'.*; correct options in the pillar"):
        traffic.attach(FIRST, addresses[0])
    assert traffic.status() == {}


def test_nothing_that_is_said_can_hold_a_second_command(traffic, balancer, addresses):
    traffic.attach(FIRST, addresses[0])
    for bad in ("x; disable frontend visitors", "x\ndisable frontend visitors", "x <<\ndisable frontend visitors"):
        with pytest.raises(CommandExecutionError):
            traffic.attach(bad, addresses[1])
        with pytest.raises(CommandExecutionError):
            traffic.attach(SECOND, bad)
    assert set(traffic.status()) == {FIRST}
    assert visit(balancer.url) == addresses[0]


def test_one_haproxy_that_is_gone_is_an_error_and_the_other_is_told_all_the_same(balancer, tmp_path, addresses):
    with Balancer(tmp_path / "other") as other:
        both = adapter(balancer, other)
        both.attach(FIRST, addresses[0])
    for call in (both.status, lambda: both.attach(SECOND, addresses[1]), lambda: both.drain(FIRST)):
        with pytest.raises(CommandExecutionError, match=f"no HAProxy answers at {other.socket}"):
            call()
    alone = adapter(balancer)
    assert (state(alone, FIRST), state(alone, SECOND)) == ("draining", "in")
    with other:
        assert both.status()[SECOND].state == "out"
        both.attach(SECOND, addresses[1])
        assert both.status()[SECOND].state == "in"
        assert visit(other.url) == addresses[1]


@pytest.mark.parametrize("drips", [False, True], ids=["says nothing", "never comes to an end"])
def test_a_haproxy_that_hangs_does_not_hang_us(tmp_path, monkeypatch, drips):
    monkeypatch.setattr(haproxy_socket, "TIMEOUT", 0.5)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "mute.sock"))
        door.listen()

        def drip() -> None:
            with suppress(OSError):
                guest, _ = door.accept()
                while True:
                    guest.sendall(b" ")
                    time.sleep(0.05)

        if drips:
            threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(CommandExecutionError, match="did not answer within 0.5 s"):
            HAProxy({"socket": str(tmp_path / "mute.sock"), "backend": "web"}, {}).status()
        assert time.monotonic() - began < 2.0
