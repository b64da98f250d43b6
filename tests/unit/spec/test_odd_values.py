"""Whatever stands at a key of the pillar or of the master config: it is read, or refused in a few printable lines."""

from __future__ import annotations

import copy
import datetime
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from salt.exceptions import SaltInvocationError

from saltext.immutable import adoption, plugins, spec
from saltext.immutable.fleet.preflight import checked

TEST = {"module_and_function": "pkg.version", "args": ["nginx"], "kwargs": {"a": 1}, "assertion": "assertEqual"}
TEST |= {"expected": "1", "name": "t", "pillar_data": {"a": 1}, "assertion_section": "x"}
WEB = {
    "from": {"recipe": "base"}, "bake_id": "web-bake.x", "saltenv": "base", "pillarenv": "base", "states": ["web"],
    "grains": {"roles": ["web"]}, "read_only": True, "bake_within": "1h", "at_boot": ["auditd"],
    "guard": {"allow": ["shop.open"], "deny": ["ps.*"], "dry_runs": True, "returners": ["mysql"],
              "allow_dangerous": False},
    "bake_identity": {"/etc/issue.net": "ok"}, "at_launch": ["secrets"], "writable": ["/srv/data"],
    "exec": ["/var/lib/app"], "limits": {"nginx.service": {"memory": "256M", "tasks": 200}}, "mutable": ["/srv/x"],
    "secrets": ["db:password"], "assume_stable": False, "keep": 5, "keep_for": "90d", "bake_in": "machine",
    "slim": {"docs": "keep", "locales": ["en"]}, "private_keys": "warn",
    "tests": {"idempotent": True, "inside": [TEST], "booted": [{"saltcheck": "web"}]},
}  # fmt: skip
MINION = {
    "log_level": "info", "grains": {"a": 1}, "mine_functions": {"network.ip_addrs": []}, "process_count_max": 5,
    "loop_interval": 1, "timezone": "UTC", "log_granular_levels": {"a": "info"}, "ipv6": None, "max_event_size": 4096,
    "log_fmt_jid": "[%(jid)s]", "retry_dns": 30, "recon_max": 10000, "tcp_keepalive_idle": 300, "auth_tries": 7,
    "return_retry_timer": 5, "master_tries": -1, "retry_dns_count": 3, "log_level_logfile": None,
}  # fmt: skip
STRATEGY = {
    "max_surge": "25%", "max_unavailable": 0, "steps": [1, "100%"], "soak": "5m", "approve": False, "min_ready": "5s",
    "ready_within": "10m", "unhealthy_for": "1m", "progress_within": "30m", "max_failures": 0, "fast_rollback": 1,
    "on_failure": "rollback", "drain_within": "30s", "keep_old": "1h", "protected": "wait", "blue_green": False,
    "skip_matching": True,
}  # fmt: skip
WINDOW = {"cron": "0 2 * * sat", "duration": "4h", "timezone": "Europe/Berlin", "freeze": False}
HAPROXY = {"socket": "/run/haproxy/admin.sock", "backend": "web", "port": 80, "check": True, "prefix": "web"}
FLEET = {
    "recipe": "web", "size": 4, "minion_id": "web-{token}.x", "channel": "stable", "strategy": STRATEGY,
    "provider": {"name": "nspawn", "memory": "1G", "cpus": 2, "minion": MINION, "capabilities": ["CAP_NET_ADMIN"],
                 "network": {"between": True, "ports": [3142]}},
    "health": [{"fun": "service.status", "args": ["nginx"], "kwargs": {"x": 1}},
               {"http": "http://{address}/", "timeout": "5s"}, {"states": True}],
    "traffic": {"haproxy": {**HAPROXY, "options": {"maxconn": 100}}}, "max_age": "30d", "windows": [WINDOW],
    "budgets": {"launches": 2, "disruptions": 1}, "sick_limit": "50%", "unreachable_for": "5m", "orphan_grace": "1h",
    "revoked": "keep", "allow_outage": False,
}  # fmt: skip
DEBIAN = {"debian": "bookworm", "packages": ["python3"], "components": ["main"], "mirror": "http://deb.debian.org/debian"}
RECIPES = {
    "base": {"from": DEBIAN, "minion": {"pip": "salt"}},
    "tarball": {"from": {"tarball": "https://example.com/x.tar", "sha256": "a" * 64}},
    "directory": {"from": {"directory": "/srv/root"}},
    "web": WEB,
}
PILLAR = {"immutable": {"recipes": RECIPES, "fleets": {"web": FLEET}}}
CONFIG = {
    "root": "/x", "store": "sqlite:////x/y", "builder": "b", "pillar_id": "p", "master": "m", "windows": [WINDOW],
    "network": {"bridge": "b0", "subnet": "10.1.0.0/24"}, "budgets": {"launches": 1, "disruptions": 1},
    "signing_key": "/k", "trusted_keys": ["/k"], "cache": "use",
}  # fmt: skip
SEAL = {"guard": WEB["guard"], "mutable": ["/srv/x"]}

find = functools.cache(plugins.find)
"""To search the installed packages takes longer than all else here."""
Path = tuple[Any, ...]
Read = Callable[[Any], object]
READERS: dict[str, tuple[Read, Any]] = {
    "pillar": (lambda found: checked(spec.definitions(found)), PILLAR),
    "config": (lambda found: spec.settings({"immutable": found}), CONFIG),
    "seal": (adoption.policy, SEAL),
}


def nested(depth: int) -> Any:
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def shared(doublings: int) -> Any:
    """Return a list that is short in memory and endless to read, as aliases of YAML make it."""
    found: Any = ["x"]
    for _ in range(doublings):
        found = [found, found]
    return found


ODD: dict[str, Any] = {
    "not a number": math.nan, "infinity": math.inf, "less than all": -math.inf, "minus one": -1, "zero": 0,
    "a large number": 10**40, "400 digits": 10**400, "5000 digits": 10**5000, "minus 5000 digits": -(10**5000),
    "a large float": 1e308, "a small float": 1e-300, "true": True, "false": False, "null": None, "empty": "",
    "bytes": b"x", "a date": datetime.date(2026, 1, 1), "a set": {1}, "an object": object(), "a list": [1],
    "a mapping": {"a": 1}, "a key that is a number": {10**5000: 1}, "a key that is none": {None: 1}, "a tuple": (1,),
    "a deep list": nested(80), "a bottomless list": nested(5000), "an endless list": shared(60),
    "a long list": [["y" * 9000]] * 5000, "wrong mappings": [{}] * 5000, "many keys": {f"k{n}": n for n in range(5000)},
    "a long text": "x" * 9000, "a long key": {"x" * 9000: 1}, "an escape": "a\x1b[2J" * 1000, "two lines": "a\nb",
    "a line break": "web\n", "NUL": "a\0b", "right to left": "a\u202eb", "half a pair": "a\ud800", "C1": "a\x9bb",
    "a key with an escape": {"\x1b[2J": 1}, "a key with half a pair": {"\ud800": 1},
    "400 digits and d": "9" * 400 + "d", "5000 digits as text": "9" * 5000, "5000 digits and %": "9" * 5000 + "%",
    "5000 digits and G": "9" * 5000 + "G", "superscript": "\u00b2", "other digits": "\u0663", "an option": "-x",
    "dots": "../x", "root": "/", "a field": "http://{address.__class__}", "a wide field": "http://{address:9999999999}",
    "a brace": "http://{", "a number of fields": "http://{0}",
}  # fmt: skip
ITSELF: list[Any] = []
ITSELF.append(ITSELF)
ODD["a list of itself"] = ITSELF


def paths(found: Any, at: Path = ()) -> Iterator[Path]:
    yield at
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, inner in items:
        yield from paths(inner, (*at, key))


KEYS = [(name, path) for name, (_, found) in READERS.items() for path in paths(found) if path != () or name != "pillar"]
KEYS.remove(("pillar", ("immutable",)))


def read_with(name: str, path: Path, value: object) -> None:
    """Put a value at a path and read all; assert that it is accepted or refused as it should be."""
    read, found = READERS[name]
    holder = [copy.deepcopy(found)]
    inner: Any = holder
    *above, last = (0, *path)
    for key in above:
        inner = inner[key]
    inner[last] = value
    try:
        with patch.object(plugins, "find", find):
            read(holder[0])
    except SaltInvocationError as err:
        lines = str(err).split("\n")
        assert 0 < len(lines) <= 21
        for line in lines:
            assert line.startswith(("immutable", "config immutable"))
            assert line.isprintable() and len(line) <= 410, line


@pytest.mark.parametrize("name", READERS)
def test_what_is_put_to_the_test_is_right(name):
    read, found = READERS[name]
    read(found)


ANY = st.recursive(
    st.floats() | st.integers() | st.text() | st.binary() | st.dates() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=600)
@given(key=st.sampled_from(KEYS), odd=st.sampled_from(sorted(ODD)))
def test_an_odd_value_is_read_or_refused_in_a_few_lines(key, odd):
    read_with(*key, ODD[odd])


@settings(max_examples=200)
@given(key=st.sampled_from(KEYS), value=ANY)
def test_any_value_is_read_or_refused_in_a_few_lines(key, value):
    read_with(*key, value)


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, b"x", {1}, datetime.date(2026, 1, 1), 10**20, nested(30), shared(40), {3: "x"}, "\ud800"),
        *("a\0b", "\x1b[2J", "x" * 300_000, [1] * 300_000, {"\0": 1}, ITSELF),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(
    "path",
    [
        ("recipes", "web", "grains", "roles"),
        ("recipes", "web", "tests", "inside", 0, "args", 0),
        ("recipes", "web", "tests", "inside", 0, "kwargs", "a"),
        ("recipes", "web", "tests", "inside", 0, "pillar_data", "a"),
        ("recipes", "web", "tests", "inside", 0, "expected"),
        ("fleets", "web", "health", 0, "args", 0),
        ("fleets", "web", "health", 0, "kwargs", "x"),
        ("fleets", "web", "provider", "minion", "grains", "a"),
        ("fleets", "web", "provider", "minion", "mine_functions", "network.ip_addrs"),
        ("fleets", "web", "traffic", "haproxy", "options", "maxconn"),
    ],
    ids=lambda path: ":".join(map(str, path)),
)
def test_what_is_no_plain_data_is_refused(path, value):
    assert_refused(path, value)


@pytest.mark.parametrize("value", ["a\x1b[2J", "a\0b", "a\ud800", "a\nb", "-x", "a\u202eb", "x" * 9000])
@pytest.mark.parametrize(
    "path",
    [
        *(("recipes", "web", key) for key in ("saltenv", "pillarenv")),
        *(("recipes", "web", key, 0) for key in ("states", "at_launch")),
        ("recipes", "base", "minion", "pip"),
        ("recipes", "web", "tests", "booted", 0, "saltcheck"),
    ],
    ids=lambda path: ":".join(map(str, path)),
)
def test_what_becomes_a_word_of_a_command_is_one_printable_word(path, value):
    assert_refused(path, value)


@pytest.mark.parametrize("value", ["a\x1b[2J", "a\0b", "a\ud800", "a\nb", "a\u202eb", "x" * 9000])
@pytest.mark.parametrize(
    "path",
    [
        ("recipes", "web", "secrets", 0),
        ("recipes", "web", "tests", "inside", 0, "name"),
        ("fleets", "web", "windows", 0, "cron"),
        ("fleets", "web", "windows", 0, "timezone"),
        ("fleets", "web", "provider", "minion", "timezone"),
    ],
    ids=lambda path: ":".join(map(str, path)),
)
def test_text_is_one_printable_line(path, value):
    assert_refused(path, value)


@pytest.mark.parametrize("value", ["/a\x1b[2J", "/a\0b", "/a\ud800", "/a\nb", "/" + "x" * 9000])
@pytest.mark.parametrize("key", ["root", "signing_key", "master", "store"])
def test_text_of_the_master_config_is_one_printable_line(key, value):
    with pytest.raises(SaltInvocationError, match=f"config immutable:{key}: "):
        spec.settings({"immutable": {key: f"sqlite:///{value}" if key == "store" else value}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("fleets", "web", "size"), 10**9),
        (("fleets", "web", "size"), 10**400),
        (("fleets", "web", "strategy", "max_surge"), 10**9),
        (("fleets", "web", "max_age"), "9" * 400 + "d"),
        (("fleets", "web", "max_age"), 10**400),
        (("fleets", "web", "max_age"), 1e308),
        (("fleets", "web", "windows", 0, "duration"), "99999999d"),
        (("recipes", "web", "keep"), 10**400),
        (("recipes", "web", "limits", "nginx.service", "tasks"), 10**9),
    ],
)
def test_a_number_has_an_upper_bound(path, value):
    assert_refused(path, value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("log_level", 7), ("log_level", "loud"), ("log_level", math.nan), ("grains", 7), ("grains", []),
        ("mine_functions", 7), ("mine_functions", {"x y": []}), ("log_granular_levels", {"a": 7}), ("ipv6", "yes"),
        ("process_count_max", "5"), ("process_count_max", True), ("process_count_max", -2), ("loop_interval", math.nan),
        ("loop_interval", 0), ("max_event_size", 1), ("tcp_keepalive", 1), ("timezone", None), ("log_fmt_console", 7),
        ("auth_timeout", 0), ("recon_max", math.inf), ("source_address", ["1.2.3.4"]), ("fips_mode", None),
    ],
)  # fmt: skip
def test_a_setting_of_a_minion_has_a_type(setting, value):
    assert_refused(("fleets", "web", "provider", "minion", setting), value)


@pytest.mark.parametrize(
    ("functions", "wrong"),
    [
        ({"internal-ip": [{"mine_function": "network.ip_addrs"}, "eth0"], "a/b": {"mine_function": "test.ping"}}, None),
        ({"web-ip": [{"mine_function": "network.ip_addrs", "cidr": "10.0.0.0/8"}], "test.ping": []}, None),
        (["network.ip_addrs", "test.ping"], None),
        ({"test.ping": [], "internal-ip": ["eth0"]}, "'internal-ip' calls 'internal-ip', which is no function"),
        ({"web-ip": [{"mine_function": "a b"}]}, "'web-ip' calls 'a b', which is no function"),
        ({"web-ip": {"mine_function": 7}}, "'web-ip' calls 7, which is no function"),
        ({"a\nb": {"mine_function": "test.ping"}}, "characters that cannot be printed"),
        (["test.ping", "a b"], "'a b' calls 'a b', which is no function"),
    ],
)
def test_the_mine_calls_functions_by_name_or_by_alias(functions, wrong):
    found = copy.deepcopy(PILLAR)
    found["immutable"]["fleets"]["web"]["provider"]["minion"]["mine_functions"] = functions
    if wrong is None:
        checked(spec.definitions(found))
        return
    with pytest.raises(SaltInvocationError, match=wrong):
        checked(spec.definitions(found))


def assert_refused(path: Path, value: object) -> None:
    """Assert that a value at a path below ``immutable`` is refused with a line that names the path."""
    found = copy.deepcopy(PILLAR)
    inner: Any = found["immutable"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(SaltInvocationError) as err:
        checked(spec.definitions(found))
    assert str(err.value).startswith(":".join(map(str, ("immutable", *path[:3]))))


def test_of_many_problems_the_first_are_named():
    with pytest.raises(SaltInvocationError) as err:
        spec.definitions({"immutable": {f"key{n}": n for n in range(300)}})
    lines = str(err.value).split("\n")
    assert len(lines) == 21 and lines[-1] == "immutable: 280 more problems; correct these first"


def test_errors_of_the_renderer_are_shortened_and_escaped():
    with pytest.raises(SaltInvocationError, match="the pillar does not render") as err:
        spec.definitions({"_errors": ["\x1b[2J" * 9000, *(f"line {n}" for n in range(500))]})
    lines = str(err.value).split("\n")
    assert len(lines) <= 62 and all(line.isprintable() and len(line) < 400 for line in lines)
