"""Rules of a firewall are baked, and in force on machines that may load them; of others a plan says that they are not.

Fleet ``wall`` has CAP_NET_ADMIN, fleet ``open`` has not; both run the same image.
"""

from __future__ import annotations

import pytest

UNIT = "nftables.service"
UNMET = "ConditionCapability=CAP_NET_ADMIN is not met"
OF_FILE, OF_STATE = "tcp dport 2222 drop", "tcp dport 23 drop"


@pytest.fixture(scope="module")
def wall(estate):
    """The report of the bake."""
    return estate.salt_run("image.bake", "wall").data


def test_the_service_is_left_to_the_boot_with_its_rules(estate, wall):
    found = [(each["what"], each["applied_by"]) for each in wall["deferred"]]
    assert (f"start {UNIT}: {UNMET}", UNIT) in found
    assert any(what.startswith("load the saved rules of nftables") and unit == UNIT for what, unit in found), found
    again = estate.salt_run("image.bake", "wall", "refresh=always").data
    assert again["image"] == wall["image"]


@pytest.mark.parametrize(
    ("fleet", "health", "warnings", "rules"),
    [
        pytest.param("wall", "active", [], (OF_FILE, OF_STATE), id="with CAP_NET_ADMIN"),
        pytest.param(
            "open",
            f"not applicable: {UNMET}",
            [
                f"not applicable on these machines: {UNIT} (it needs CAP_NET_ADMIN); capabilities in the settings of "
                "the fleet's provider give machines what they need"
            ],
            (),
            id="without",
        ),
    ],
)
def test_rules_are_in_force_where_a_machine_may_load_them(estate, wall, fleet_of_one, fleet, health, warnings, rules):
    assert estate.salt_run("fleet.plan", fleet).data["warnings"] == warnings
    with fleet_of_one(fleet) as machine:
        loaded = machine("nft list ruleset")
        assert [rule for rule in (OF_FILE, OF_STATE) if rule in loaded] == list(rules), loaded
        assert estate.salt(f"{fleet}-*", "immutable.services").data == {machine.minion_id: {UNIT: health}}
        assert machine("systemctl --failed --no-legend --plain") == ""
        found = estate.salt_run("fleet.drift", fleet).data
        assert (found["clean"], found["drifted"], found["unknown"]) == (1, [], []), found
