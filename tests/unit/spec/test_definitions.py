"""The definitions in a pillar: what is read, and the error for everything else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions
from saltext.immutable.spec.model import STATES_CHECK, Amount, FunctionCheck, HttpCheck, Minion, ProviderSpec
from saltext.immutable.spec.origins import Debian, Parent

GOOD = yaml.safe_load("""
immutable:
  recipes:
    base:
      from: {debian: bookworm, packages: [systemd-sysv, dbus]}
      minion: {pip: salt==3008.3}
    web:
      from: {recipe: base}
      bake_id: web-bake.example.com
      saltenv: prod
      pillarenv: prod
      grains: {roles: [web]}
      states: highstate
      read_only: false
    db:
      from: {recipe: base}
      states: [postgresql]
  fleets:
    web:
      recipe: web
      channel: candidate
      size: 6
      minion_id: 'web-{token}.example.com'
      provider: {name: nspawn, memory: 512M}
      strategy: {max_surge: 25%, max_unavailable: 1, ready_within: 1h30m, max_failures: 2, on_failure: pause}
      health:
        - {fun: service.status, args: [nginx]}
        - {http: 'http://{address}/healthz', timeout: 2}
    small:
      recipe: base
      size: 1
      minion_id: 'small-{token}'
      provider: {name: nspawn}
""")


def pillar(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The good pillar with the values at some paths (``recipes:web:from``) set; ``...`` deletes one."""
    changed = copy.deepcopy(GOOD)
    for path, value in changes:
        *above, last = path.split(":")
        parent = changed["immutable"]
        for key in above:
            parent = parent[key]
        if value is ...:
            del parent[last]
        else:
            parent[last] = value
    return changed


def refused(*changes: tuple[str, Any]) -> str:
    with pytest.raises(SaltInvocationError) as err:
        definitions(pillar(*changes))
    return str(err.value)


def test_all_of_a_recipe_is_read():
    recipes = definitions(GOOD).recipes
    assert recipes["base"].source == Debian("bookworm", ("systemd-sysv", "dbus"))
    assert recipes["base"].minion == Minion("salt==3008.3")
    web = recipes["web"]
    assert (web.source, web.minion, web.bake_id) == (Parent("base"), None, "web-bake.example.com")
    assert (web.saltenv, web.pillarenv, web.grains) == ("prod", "prod", {"roles": ["web"]})
    assert (web.states, web.read_only) == ("highstate", False)
    assert (recipes["db"].states, recipes["db"].bake_id) == (("postgresql",), "db-bake")


def test_all_of_a_fleet_is_read():
    web = definitions(GOOD).fleets["web"]
    assert (web.name, web.recipe, web.channel, web.size) == ("web", "web", "candidate", 6)
    assert web.minion_id == "web-{token}.example.com"
    assert web.provider == ProviderSpec("nspawn", {"memory": "512M"})
    assert web.health == (
        FunctionCheck("service.status", ("nginx",)),
        HttpCheck("http://{address}/healthz", 2.0),
    )
    strategy = web.strategy
    assert (strategy.max_surge, strategy.max_unavailable) == (Amount(25, percent=True), Amount(1))
    assert (strategy.ready_within, strategy.progress_within) == (5400.0, 10830.0)
    assert (strategy.max_failures, strategy.on_failure) == (Amount(2), "pause")


def test_the_shortest_definitions_have_defaults():
    found = definitions(pillar(("recipes:base:minion", ...)))
    assert found.recipes["base"].minion == Minion("salt")
    assert found.recipes["base"].read_only
    small = found.fleets["small"]
    assert (small.channel, small.health, small.allow_outage) == ("stable", (), False)
    assert small.checks == (STATES_CHECK,)
    assert [recipe.name for recipe in found.chain("web")] == ["base", "web"]


def test_a_pillar_may_define_nothing_yet():
    assert definitions({"immutable": {}}).fleets == {}


@pytest.mark.parametrize(
    ("given", "checks"),
    [
        pytest.param({"states": False}, (), id="alone"),
        pytest.param({"states": True}, (STATES_CHECK,), id="as by default"),
        pytest.param([{"states": False}], (), id="in a list"),
        pytest.param([{"http": "http://x/"}, {"states": False}], (HttpCheck("http://x/"),), id="beside"),
        pytest.param([{"http": "http://x/"}], (STATES_CHECK, HttpCheck("http://x/")), id="not named"),
    ],
)
def test_the_check_of_what_the_states_declare_is_on_unless_the_pillar_turns_it_off(given, checks):
    assert definitions(pillar(("fleets:web:health", given))).fleets["web"].checks == checks


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            ("recipes:web:stats", "highstate"),
            "immutable:recipes:web:stats: no such key; did you mean 'states'?",
            id="an unknown key gets the nearest known one",
        ),
        pytest.param(
            ("fleet", {}),
            "immutable:fleet: no such key; did you mean 'fleets'?",
            id="at the top as well",
        ),
        pytest.param(
            ("fleets:web:strategy:canary", 1),
            "immutable:fleets:web:strategy:canary: no such key; known here: approve, blue_green, "
            "drain_within, fast_rollback, keep_old, max_failures, max_surge, max_unavailable, min_ready, on_failure, "
            "progress_within, protected, ready_within, skip_matching, soak, steps, unhealthy_for",
            id="an unknown key that resembles none gets all",
        ),
        pytest.param(
            ("recipes:base:from:recipe", "web"),
            "immutable:recipes:base:from: more than one source",
            id="a recipe has one source",
        ),
        pytest.param(
            ("recipes:base:from", {}),
            "immutable:recipes:base:from: no source; write {debian: bookworm}, {tarball: PATH or URL}",
            id="a source says what it is",
        ),
        pytest.param(
            ("recipes:base:from", ...),
            "immutable:recipes:base: from is missing; write {debian: bookworm}",
            id="a recipe has a source",
        ),
        pytest.param(
            ("recipes:base:from", "bookworm"),
            "immutable:recipes:base:from: must be a mapping, not str 'bookworm'",
            id="a source is a mapping",
        ),
        pytest.param(
            ("recipes:base:from:debian", 12),
            "immutable:recipes:base:from:debian: must be text, not int 12; quote it",
            id="a number is no text",
        ),
        pytest.param(
            ("recipes:base:from:packages", "dbus"),
            "immutable:recipes:base:from:packages: must be a list, not str 'dbus'; write [dbus]",
            id="a word is no list",
        ),
        pytest.param(
            ("recipes:web:from:recipe", "bsae"),
            "immutable:recipes:web:from:recipe: no recipe 'bsae'; did you mean 'base'?",
            id="a parent exists",
        ),
        pytest.param(
            ("recipes:base", {"from": {"recipe": "web"}}),
            "immutable:recipes:base:from:recipe: its parents form a circle, base -> web -> base",
            id="parents go in no circle",
        ),
        pytest.param(
            ("recipes:base", {"from": {"recipe": "base"}}),
            "immutable:recipes:base:from:recipe: its parents form a circle, base -> base",
            id="no recipe is its own parent",
        ),
        pytest.param(
            ("recipes:web:minion", {"pip": "salt"}),
            "immutable:recipes:web:minion: Salt is installed only in the recipe that has no parent",
            id="only the root recipe installs Salt",
        ),
        pytest.param(
            ("recipes:base:minion", {"apt": "salt-minion"}),
            "immutable:recipes:base:minion:apt: no such key; known here: pip",
            id="Salt comes by pip",
        ),
        pytest.param(
            ("recipes:web:states", "nginx"),
            "immutable:recipes:web:states: must be highstate or a list of SLS, not 'nginx'; write [nginx]",
            id="one SLS is a list of one",
        ),
        pytest.param(
            ("recipes:web:read_only", 1),
            "immutable:recipes:web:read_only: must be true or false, not int 1",
            id="1 is not true",
        ),
        pytest.param(
            ("recipes:web:grains", None),
            "immutable:recipes:web:grains: must be a mapping, not empty",
            id="a key with nothing behind it is not absent",
        ),
        pytest.param(
            ("recipes:web:bake_id", "web/bake"),
            "immutable:recipes:web:bake_id: 'web/bake' is not a minion id",
            id="a bake id is a minion id",
        ),
        pytest.param(
            ("recipes:db:bake_id", "web-bake.example.com"),
            "immutable:recipes:db:bake_id: recipe 'web' has the bake id 'web-bake.example.com' too",
            id="two bakes never share a key",
        ),
        pytest.param(
            ("recipes:Web", {}),
            "immutable:recipes:Web: 'Web' is not a name",
            id="names are small letters",
        ),
        pytest.param(
            ("recipes", {1: {}}),
            "immutable:recipes: the key 1 must be text; quote it",
            id="a name is text",
        ),
        pytest.param(
            ("fleets:web:recipe", "wbe"),
            "immutable:fleets:web:recipe: no recipe 'wbe'; did you mean 'web'?",
            id="a fleet's recipe exists",
        ),
        pytest.param(
            ("fleets:all", {}),
            "immutable:fleets:all: a fleet cannot have the name all: commands take it for every fleet",
            id="a fleet cannot be called all",
        ),
        pytest.param(
            ("fleets:drift", {}),
            "immutable:fleets:drift: a fleet cannot have the name drift: tags of events about drift begin with it",
            id="nor as events are tagged",
        ),
        pytest.param(
            ("fleets:web:size", ...),
            "immutable:fleets:web: size is missing; write size: 3",
            id="a size is written down",
        ),
        pytest.param(
            ("fleets:web:size", "3"),
            "immutable:fleets:web:size: must be a whole number, not str '3'; write it without quotes",
            id="a quoted number is none",
        ),
        pytest.param(
            ("fleets:web:size", True),
            "immutable:fleets:web:size: must be a whole number, not bool True",
            id="true is no number",
        ),
        pytest.param(
            ("fleets:web:size", -1), "immutable:fleets:web:size: must be 0 or more", id="no negative size"
        ),
        pytest.param(
            ("fleets:web:minion_id", "web.example.com"),
            "immutable:fleets:web:minion_id: must hold {token} once, not 'web.example.com'",
            id="ids differ",
        ),
        pytest.param(
            ("fleets:web:minion_id", "{token}-{token}"),
            "immutable:fleets:web:minion_id: must hold {token} once",
            id="one token an id",
        ),
        pytest.param(
            ("fleets:web:minion_id", "web-*-{token}"),
            "immutable:fleets:web:minion_id: 'web-*-0' is not a minion id",
            id="an id is no glob",
        ),
        pytest.param(
            ("fleets:web:provider", ...),
            "immutable:fleets:web: provider is missing; write provider: {name: nspawn}",
            id="a fleet runs somewhere",
        ),
        pytest.param(
            ("fleets:web:provider", "nspawn"),
            "immutable:fleets:web:provider: must be a mapping, not str 'nspawn'",
            id="a provider is a mapping",
        ),
        pytest.param(
            ("fleets:web:provider", {"memory": "1G"}),
            "immutable:fleets:web:provider: name is missing; write name: nspawn",
            id="a provider has a name",
        ),
        pytest.param(
            ("fleets:web:strategy:max_surge", "25"),
            "immutable:fleets:web:strategy:max_surge: must be a number of machines or 0% to 100%, not '25'",
            id="a share has a percent sign",
        ),
        pytest.param(
            ("fleets:web:strategy:max_surge", "101%"),
            "immutable:fleets:web:strategy:max_surge: must be a number of machines or 0% to 100%",
            id="a share is at most all",
        ),
        pytest.param(
            ("fleets:web:strategy:max_surge", 0.5),
            "immutable:fleets:web:strategy:max_surge: must be a whole number, not float 0.5",
            id="half a machine is none",
        ),
        pytest.param(
            ("fleets:web:strategy:ready_within", "10 minutes"),
            "immutable:fleets:web:strategy:ready_within: must be a duration, not str '10 minutes'; write 90s",
            id="a duration has our units",
        ),
        pytest.param(
            ("fleets:web:strategy:ready_within", 0),
            "immutable:fleets:web:strategy:ready_within: must be more than 0",
            id="no time is no duration",
        ),
        pytest.param(
            ("fleets:web:strategy:ready_within", float("inf")),
            "immutable:fleets:web:strategy:ready_within: must be more than 0 and finite",
            id="a duration ends",
        ),
        pytest.param(
            ("fleets:web:strategy:on_failure", "abort"),
            "immutable:fleets:web:strategy:on_failure: must be rollback or pause, not str 'abort'",
            id="failure has two answers",
        ),
        pytest.param(
            ("fleets:web:strategy:progress_within", "1h"),
            "immutable:fleets:web:strategy: progress_within (3600 s) is shorter than ready_within (5400 s)",
            id="a boot that is allowed is progress",
        ),
        pytest.param(
            ("fleets:web:health", {"fun": "test.ping"}),
            "immutable:fleets:web:health: must be a list",
            id="health is a list",
        ),
        pytest.param(
            ("fleets:web:health", [{"fun": "test.ping", "http": "http://{address}/"}]),
            "immutable:fleets:web:health:0: two checks in one entry",
            id="one check an entry",
        ),
        pytest.param(
            ("fleets:web:health", [{"fun": "test.ping"}, {}]),
            "immutable:fleets:web:health:1: no check in one entry",
            id="an entry checks something",
        ),
        pytest.param(
            ("fleets:web:health", [{"http": "{address}/"}]),
            "immutable:fleets:web:health:0:http: must begin with http:// or https://",
            id="a URL has a scheme",
        ),
        pytest.param(
            ("fleets:web:health", [{"http": "http://{ip}/"}]),
            "immutable:fleets:web:health:0:http: {ip} is unknown; use {address} or {minion_id}",
            id="a URL's blanks can be filled in",
        ),
        pytest.param(
            ("fleets:web:health", [{"fun": "ping"}]),
            "immutable:fleets:web:health:0:fun: must be a Salt function, not 'ping'",
            id="a function has a module",
        ),
        pytest.param(
            ("fleets:web:health", [{"fun": "service.status", "arg": ["nginx"]}]),
            "immutable:fleets:web:health:0:arg: no such key; did you mean 'args'?",
            id="a check's keys are known",
        ),
    ],
)
def test_an_error_names_the_path_and_what_to_write(change, sentence):
    assert sentence in refused(change)


@pytest.mark.parametrize(
    ("size", "surge", "unavailable", "sentence"),
    [
        pytest.param(6, 0, 0, "both 0, so no machine", id="0 and 0 as written replaces nothing"),
        pytest.param(6, "0%", 0, "both 0, so no machine", id="0 % is 0 as written"),
        pytest.param(0, 0, 0, "both 0, so no machine", id="0 and 0 is wrong for an empty fleet too"),
        pytest.param(2, 0, "25%", "25% of 2 rounds down to 0", id="0 and rounded to 0 replaces nothing"),
        pytest.param(3, 1, 3, "leave no machine serving", id="a floor of zero has to be meant"),
        pytest.param(3, 1, "100%", "leave no machine serving", id="a floor of zero in percent too"),
    ],
)
def test_impossible_limits(size, surge, unavailable, sentence):
    error = refused(
        ("fleets:web:size", size),
        ("fleets:web:strategy:max_surge", surge),
        ("fleets:web:strategy:max_unavailable", unavailable),
    )
    assert error.startswith("immutable:fleets:web:strategy: ")
    assert sentence in error


@pytest.mark.parametrize(
    ("size", "surge", "unavailable", "outage"),
    [
        pytest.param(2, "25%", 0, False, id="a surge in percent rounds up to one"),
        pytest.param(1, 1, 0, False, id="one machine is replaced by surge"),
        pytest.param(0, 1, 0, False, id="size 0 that is written down is meant"),
        pytest.param(0, 0, "50%", False, id="an empty fleet has nothing to replace"),
        pytest.param(2, 0, 2, True, id="an outage that is allowed"),
    ],
)
def test_possible_limits(size, surge, unavailable, outage):
    definitions(
        pillar(
            ("fleets:web:size", size),
            ("fleets:web:strategy:max_surge", surge),
            ("fleets:web:strategy:max_unavailable", unavailable),
            ("fleets:web:allow_outage", outage),
        )
    )


def test_all_errors_are_reported_at_once():
    error = refused(
        ("recipes:web:read_only", "yes"), ("fleets:web:size", "x"), ("fleets:web:minion_id", ...)
    ).splitlines()
    assert [line.split(": ")[0] for line in error] == [
        "immutable:recipes:web:read_only",
        "immutable:fleets:web:size",
        "immutable:fleets:web",
    ]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        pytest.param({}, "immutable: the pillar has no such key", id="a pillar without definitions"),
        pytest.param({"immutable": None}, "immutable: must be a mapping, not empty", id="an empty key"),
        pytest.param({"immutable": []}, "immutable: must be a mapping, not list []", id="a list"),
        pytest.param(
            {"immutable": GOOD["immutable"], "_errors": ["Rendering SLS 'web' failed"]},
            "the pillar does not render; correct this first:\nRendering SLS 'web' failed",
            id="half a pillar is none",
        ),
    ],
)
def test_a_broken_pillar_is_no_empty_one(broken, sentence):
    with pytest.raises(SaltInvocationError) as err:
        definitions(broken)
    assert sentence in str(err.value)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param({"debian": "../../x; touch /tmp/pwn"}, id="a suite is no path and no command"),
        pytest.param({"debian": "bookworm", "packages": ["--help"]}, id="a package is no option"),
        pytest.param({"debian": "bookworm", "components": ["main [trusted=yes]"]}, id="a component is one word"),
        pytest.param({"debian": "bookworm", "mirror": "http://x/debian\ndeb http://evil"}, id="a mirror is one line"),
        pytest.param({"debian": "bookworm", "mirror": "[trusted=yes] http://x"}, id="a mirror has no options"),
    ],
)
def test_what_becomes_a_command_line_on_the_builder_is_only_that(source):
    with pytest.raises(SaltInvocationError, match="immutable:recipes:base:from"):
        definitions({"immutable": {"recipes": {"base": {"from": source}}}})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param("a/b", "immutable:recipes:a/b: 'a/b' is not a name", id="a slash"),
        pytest.param("..", "immutable:recipes:..: '..' is not a name", id="the folder above"),
        pytest.param("a\nb", "immutable:recipes:a\\nb: 'a\\nb' holds characters", id="a line break"),
        pytest.param("web\n", "immutable:recipes:web\\n: 'web\\n' holds characters", id="a line break at the end"),
        pytest.param("a\x1b[2J", "immutable:recipes:a\\x1b[2J: 'a\\x1b[2J' holds characters", id="a terminal escape"),
        pytest.param("-rf", "'-rf' is not a name", id="an option"),
        pytest.param("a" * 64, f"{'a' * 20}... has 64 characters; use at most 63", id="too long for a file"),
    ],
)
def test_a_name_that_could_be_a_path_or_an_order_is_refused(name, sentence):
    with pytest.raises(SaltInvocationError) as err:
        definitions({"immutable": {"recipes": {name: GOOD["immutable"]["recipes"]["base"]}}})
    assert sentence in str(err.value)


def test_an_id_that_is_too_long_for_a_file_is_refused():
    assert "aaa... has 201 characters; use at most 200" in refused(("recipes:web:bake_id", "a" * 201))


def test_two_fleets_have_no_traffic_in_common():
    shared = {"haproxy": {"socket": "/run/haproxy/admin.sock", "backend": "web"}}
    error = refused(("fleets:web:traffic", shared), ("fleets:small:traffic", shared))
    assert "immutable:fleets:small:traffic: is the same as that of fleet web" in error
    own = {"haproxy": {**shared["haproxy"], "prefix": "small"}}
    assert definitions(pillar(("fleets:web:traffic", shared), ("fleets:small:traffic", own))).fleets["small"].traffic
