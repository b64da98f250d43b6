"""What changed since the last bake is named, and never its value."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.immutable.bake.keys import changed_inputs

GROUND = {"below": "b", "bake_id": "web-bake", "states": ("web",), "saltenv": "base", "tops": "t", "pillar": "whole"}
DETAILS = {"grains": {"os": "1"}, "pillar": {"db:password": "1", "web:ports:0": "2"}}
SELECTED = {
    "files": {"base": {"web/init.sls": "33188 aa", "web.sls": ""}},
    "lists": {
        "list base:web/site/": "1",
        "has base:web/site": True,
        "sls base:web.*": ["web.a"],
        "environments": ["base"],
    },
}
MORE = {"asked": [], "states": {"web: nginx (pkg.installed)": "1"}, "unproven": []}


def parts(
    ground: dict[str, Any] | None = None, details: dict[str, Any] | None = None, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    return changed_inputs.parts(
        {**GROUND, **(ground or {})}, {**DETAILS, **(details or {})}, SELECTED, {**MORE, **(more or {})}
    )


def with_files(**lists: Any) -> dict[str, Any]:
    selected = {"files": SELECTED["files"], "lists": {**SELECTED["lists"], **lists}}
    return changed_inputs.parts(GROUND, DETAILS, selected, MORE)


def files(found: dict[str, str]) -> dict[str, Any]:
    return changed_inputs.parts(GROUND, DETAILS, {**SELECTED, "files": {"base": found}}, MORE)


@pytest.mark.parametrize(
    ("new", "told"),
    [
        pytest.param(parts(), [], id="nothing"),
        pytest.param(parts(details={"grains": {"os": "2"}}), ["web: grain os changed"], id="a grain"),
        pytest.param(
            parts(details={"pillar": {"db:password": "9", "web:name": "1"}}),
            ["web: pillar db:password changed", "web: pillar web:name is new", "web: pillar web:ports:0 is gone"],
            id="pillar by its path",
        ),
        pytest.param(
            files({"web/init.sls": "33188 bb", "web.sls": ""}), ["web: file web/init.sls (base) changed"], id="a file"
        ),
        pytest.param(
            files({"web/init.sls": "", "web.sls": "33188 cc"}),
            ["web: file web.sls (base) is new", "web: file web/init.sls (base) is gone"],
            id="files that come and go",
        ),
        pytest.param(
            with_files(**{"list base:web/site/": "2"}),
            ["web: the list of files in base:web/site/ changed"],
            id="a list",
        ),
        pytest.param(
            with_files(**{"sls base:web.*": []}), ["web: state files called base:web.* changed"], id="state files"
        ),
        pytest.param(
            with_files(environments=["base", "dev"]), ["web: the list of environments changed"], id="environments"
        ),
        pytest.param(
            parts(more={"states": {"web: nginx (pkg.installed)": "2"}}),
            ["web: state web: nginx (pkg.installed) changed"],
            id="a state",
        ),
        pytest.param(parts({"states": ("web", "shop")}), ["web: setting states changed"], id="the recipe's states"),
        pytest.param(parts({"bake_in": "chroot"}), ["web: setting bake_in is new"], id="where it is baked"),
        pytest.param(parts({"tests": [{"name": "x"}]}), ["web: setting tests is new"], id="its tests"),
        pytest.param(parts({"tops": "u"}), ["web: what the master's external tops say changed"], id="external tops"),
        pytest.param(parts({"below": "c"}), [], id="the layer below: its own inputs tell why"),
    ],
)
def test_changes(new, told):
    assert changed_inputs.changes("web", parts(), new) == told


def test_layers_below_tell_which_of_their_inputs_changed():
    old = {"debian bookworm": {"suite": "bookworm", "packages": ["a"]}, "minion salt": {"pack": "1"}}
    new = {"debian bookworm": {"suite": "bookworm", "packages": ["a", "b"]}, "minion salt==3008": {"pack": "1"}}
    assert changed_inputs.of_layers(old, new) == [
        "debian bookworm changed: packages",
        "minion salt is gone",
        "minion salt==3008 is new",
    ]


def test_packages_with_updates():
    assert changed_inputs.of_packages({"b": "1", "a": "1"}, {"a": "2", "b": "1"}) == ["package a has an update: 1 -> 2"]


def test_leaves_have_paths_as_salt_writes_them():
    data = {"db": {"password": "x", "hosts": ["a", "b"], "empty": {}}, "on": True}
    leaves = {"db:password": "x", "db:hosts:0": "a", "db:hosts:1": "b", "db:empty": {}, "on": True}
    assert dict(changed_inputs.leaves(data)) == leaves
