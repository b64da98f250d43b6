"""Settings that would switch something off, or be seen only in the middle of a rollout, are refused with the pillar."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions

RECIPE = {"from": {"debian": "bookworm"}}
FLEET = {"recipe": "web", "size": 3, "minion_id": "web-{token}", "provider": {"name": "nspawn"}}


def read(recipe: dict[str, Any] | None = None, /, **fleet: Any) -> Any:
    found = {"recipes": {"web": {**RECIPE, **(recipe or {})}}, "fleets": {"web": {**FLEET, **fleet}}}
    return definitions({"immutable": found})


def refused(recipe: dict[str, Any] | None = None, /, **fleet: Any) -> str:
    with pytest.raises(SaltInvocationError) as err:
        read(recipe, **fleet)
    return str(err.value)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("/**", "/"), ("/*", "/"), ("/**/*", "/etc"), ("/e*", "/etc"), ("/etc", "/etc"), ("/etc/**", "/etc"),
        ("/etc/*", "/etc"), ("/etc/*/*", "/etc/apparmor.d"), ("/etc/*.d/*", "/etc/apparmor.d"), ("/?*/?*", "/etc"),
        ("/**/system", "/etc/systemd/system"), ("/etc/systemd/system/*", "/etc/systemd/system"),
        ("/etc/pam.d/*", "/etc/pam.d"), ("/etc/ssh/*", "/etc/ssh"), ("/etc/cron.d/*", "/etc/cron.d"),
        ("/etc/salt/*", "/etc/salt"), ("/etc/salt/minion.d", "/etc/salt/minion.d"),
        ("/etc/sudoers.d/**", "/etc/sudoers.d"), ("/var", "/var"), ("/var/*", "/var"), ("/var/lib/*", "/var/lib"),
        ("/var/lib/dpkg/*", "/var/lib/dpkg"),
        ("/root", "/root"), ("/root/.ssh/*", "/root/.ssh"), ("/var/spool/cron/crontabs/*", "/var/spool/cron/crontabs"),
    ],
)  # fmt: skip
def test_mutable_may_not_hold_a_folder_of_the_system(pattern, folder):
    said = refused({"mutable": ["/srv", pattern]})
    assert f"immutable:recipes:web:mutable: '{pattern}' holds all of {folder}, so drift there" in said


@pytest.mark.parametrize(
    ("pattern", "tree"),
    [
        ("/?in", "/bin"), ("/usr", "/usr"), ("/usr/*", "/usr"), ("/usr/bin/*", "/usr"), ("/usr/sbin/*", "/usr"),
        ("/usr/lib/x86_64-linux-gnu", "/usr"), ("/usr/lib/immutable", "/usr"), ("/usr/share/app", "/usr"),
        ("/boot/grub", "/boot"), ("/boot/grub/*", "/boot"), ("/boot/grub/grub.cfg", "/boot"),
        ("/u**", "/usr"), ("/**/bash", "/bin"), ("/*/bin/*", "/bin"), ("/**/*.so", "/bin"), ("/lib/x", "/lib"),
        ("/opt", "/opt/salt"), ("/opt/*", "/opt/salt"), ("/opt/salt/**", "/opt/salt"), ("/opt/s**/x", "/opt/salt"),
        ("/etc/immutable/seal.json", "/etc/immutable"), ("/etc/imm*", "/etc/immutable"),
    ],
)  # fmt: skip
def test_mutable_may_name_nothing_of_the_image_itself(pattern, tree):
    said = refused({"mutable": ["/srv", pattern]})
    assert f"immutable:recipes:web:mutable: '{pattern}' reaches into {tree}, so drift there" in said


@pytest.mark.parametrize("pattern", ["/etc/shadow", "/etc/sudo*s", "/etc/ld.so.preload", "/etc/?asswd"])
def test_mutable_may_not_hold_files_that_decide_who_may_do_what(pattern):
    assert f"immutable:recipes:web:mutable: '{pattern}' holds /" in refused({"mutable": [pattern]})


@pytest.mark.parametrize(
    "pattern",
    [
        *("/srv", "/srv/**", "/srv/*/cache", "/var/lib/shop", "/var/lib/shop/*", "/etc/a/**", "/opt/shop", "/home/**"),
        *("/var/lib/docker", "/data/**/tmp", "/opt/a?c", "/etc/cron.d/shop", "/etc/systemd/system/shop.service"),
        *("/var/cache", "/var/lib/systemd/linger/ada", "/etc/ssl/private/*", "/root/shop", "/boot/grub/grubenv"),
    ],
)
def test_mutable_may_hold_what_changes_by_design(pattern):
    assert read({"mutable": [pattern]}).recipes["web"].mutable == (pattern,)


@pytest.mark.parametrize("name", ["/etc", "../base", "a/../../b", "base\n", "a b", ""])
@pytest.mark.parametrize("key", ["saltenv", "pillarenv"])
def test_an_environment_may_not_lead_out_of_the_cache(key, name):
    assert f"immutable:recipes:web:{key}: " in refused({key: name})


@pytest.mark.parametrize("name", ["base", "feature/x", "v1.2", "dev_3"])
def test_an_environment(name):
    assert read({"saltenv": name}).recipes["web"].saltenv == name


@pytest.mark.parametrize(
    "value", [datetime.date(2026, 11, 29), float("nan"), float("inf"), b"x", {1}, [datetime.date(2026, 1, 1)], {3: "x"}]
)
def test_a_health_check_takes_only_what_a_job_can_carry(value):
    assert "immutable:fleets:web:health:0:args: " in refused(health=[{"fun": "test.echo", "args": [value]}])
    assert "immutable:fleets:web:health:0:kwargs: " in refused(health=[{"fun": "test.echo", "kwargs": {"x": value}}])


def test_arguments_of_a_health_check():
    given = {"fun": "x.y", "args": ["a", 1, 2.5, None, [True]], "kwargs": {"b": {"c": []}}}
    [check] = read(health=[given]).fleets["web"].health
    assert (check.args, check.kwargs) == (("a", 1, 2.5, None, [True]), {"b": {"c": []}})


@pytest.mark.parametrize("word", ["x" * 5000, "\x1b[2J" * 1000, "\u202e" + "y" * 3000, "a\nb" * 900])
@pytest.mark.parametrize(
    "settings",
    [
        lambda word: ({"from": {"debian": "bookworm", "packages": [word]}}, {}),
        lambda word: ({"saltenv": f"/{word}"}, {}),
        lambda word: ({"states": {word: 1}}, {}),
        lambda word: ({word: 1}, {}),
        lambda word: ({"mutable": [word]}, {}),
        lambda word: ({"guard": {"allow": [word]}}, {}),
        lambda word: ({"bake_in": word}, {}),
        lambda word: ({"read_only": word}, {}),
        lambda word: ({}, {"minion_id": word}),
        lambda word: ({}, {"size": word}),
        lambda word: ({}, {"strategy": {"soak": word}}),
        lambda word: ({}, {"strategy": {"max_surge": word}}),
        lambda word: ({}, {"health": [{"http": word}]}),
        lambda word: ({}, {"health": word}),
        lambda word: ({}, {"recipe": word}),
        lambda word: ({}, {"max_age": word}),
    ],
)  # fmt: skip
def test_a_message_is_short_and_nothing_in_it_reaches_the_terminal(word, settings):
    recipe, fleet = settings(word)
    said = refused(recipe, **fleet)
    assert said.replace("\n", "").isprintable()
    for line in said.splitlines():
        assert line.startswith("immutable:") and len(line) < 800
