"""A saved plan is executed exactly as it was shown, once, or not at all."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.books.saved_plans import MAX_AGE, MAX_PLANS, Plans, ground, require_same
from saltext.immutable.fleet.decide.state import Action, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet, FunctionCheck, ProviderSpec, Strategy, Window
from saltext.immutable.store import Image, Store

ONE, TWO = (Image(digit * 64, "web", ("l",), 1.0, True, {}) for digit in "12")
FLEET = Fleet(
    "web",
    recipe="web",
    size=2,
    minion_id="web-{token}",
    provider=ProviderSpec("nspawn", {"memory": "1G"}),
    strategy=Strategy(max_surge=Amount(25, percent=True), steps=(Amount(1), Amount(100, percent=True))),
    health=(FunctionCheck("service.status", ("nginx",)),),
    windows=(Window("0 2 * * sat", 3600.0),),
)
MACHINES = [Machine(f"web-{name}", 1, "serving", 1.0, 1.0, "yes") for name in "ab"]
ACTIONS = [Action("launch", 2, "1 of 2"), Action("destroy", 1, "goes", "web-a")]
ROLLOUT = Rollout(7, "web", "roll", 1, 2, 2, 1.0, 1.0)
MONDAY = 1_800_000_000.0


def made_from(fleet=FLEET, image=ONE, generation=1, unfinished=None, machines=MACHINES):
    return ground(fleet, image, generation, unfinished, machines)


@pytest.fixture
def store():
    return Store.open("sqlite://")


@pytest.fixture
def plans(store):
    numbers = itertools.count()
    return Plans(store, "web", token=lambda: f"{next(numbers):08x}")


@pytest.fixture
def saved(plans):
    return plans.find(plans.save(made_from(), ACTIONS, MONDAY, who="jane"))


def test_a_plan_is_kept_as_it_was_shown(saved):
    assert (saved.id, saved.fleet, saved.at, saved.who, saved.image) == ("p00000000", "web", MONDAY, "jane", None)
    assert saved.ground == json.loads(json.dumps(made_from())), "as data that any database keeps"
    assert saved.ground["fleet"]["strategy"]["steps"] == ["1", "100%"]
    assert [action["kind"] for action in saved.actions] == ["launch", "destroy"]


def test_other_reasons_are_no_difference(saved):
    require_same(saved, made_from(), [replace(ACTIONS[0], reason="said otherwise"), ACTIONS[1]])


@pytest.mark.parametrize(
    ("now", "message"),
    [
        pytest.param({"image": TWO}, r"image web@2{12} would run, not web@1{12}", id="the channel moved"),
        pytest.param({"fleet": replace(FLEET, size=3)}, "size is 3, it was 2", id="the size"),
        pytest.param(
            {"fleet": replace(FLEET, strategy=Strategy(steps=FLEET.strategy.steps, max_unavailable=Amount(1)))},
            "strategy.max_unavailable is 1, it was 0",
            id="the strategy",
        ),
        pytest.param(
            {"fleet": replace(FLEET, provider=ProviderSpec("nspawn", {"memory": "2G"}))},
            "provider.settings.memory is 2G, it was 1G",
            id="launch settings",
        ),
        pytest.param({"fleet": replace(FLEET, health=())}, "health is none, it was .*nginx", id="the health checks"),
        pytest.param({"generation": 2}, "generation 2 runs, not 1", id="somebody rolled"),
        pytest.param({"unfinished": ROLLOUT}, "roll 7 is unfinished", id="a rollout stopped halfway"),
        pytest.param(
            {"machines": [*MACHINES, replace(MACHINES[0], minion_id="web-c")]}, "1 machine is new: web-c", id="new"
        ),
        pytest.param({"machines": MACHINES[1:]}, "1 machine is gone: web-a", id="gone"),
        pytest.param(
            {"machines": [replace(MACHINES[0], taint="vim"), MACHINES[1]]}, "is tainted now: web-a", id="tainted"
        ),
        pytest.param({"machines": [replace(MACHINES[0], fault="dead"), MACHINES[1]]}, "is lost now: web-a", id="died"),
    ],
)
def test_a_plan_that_no_longer_fits_is_refused_with_each_difference(saved, now, message):
    with pytest.raises(CommandExecutionError, match=message) as refused:
        require_same(saved, made_from(**now), ACTIONS)
    assert "make a new plan: `salt-run fleet.plan web`" in str(refused.value)


def test_all_differences_are_named_at_once(saved):
    with pytest.raises(CommandExecutionError, match="would run.*is gone: web-a.*is tainted now: web-b"):
        require_same(saved, made_from(image=TWO, machines=[replace(MACHINES[1], taint="vim")]), ACTIONS)


def test_the_same_ground_that_leads_to_other_actions_is_refused_too(saved):
    """Time alone can do that: a machine has come of age since."""
    with pytest.raises(CommandExecutionError, match="now it would be: launch a new machine; the plan says: .* web-a"):
        require_same(saved, made_from(), ACTIONS[:1])


def test_a_plan_is_good_for_one_roll(store, plans, saved):
    with store.lease("fleet web") as lease:
        plans.use(lease, saved, MONDAY + 60)
        with pytest.raises(SaltInvocationError, match=f"plan {saved.id} was used at"):
            plans.use(lease, saved, MONDAY + 61)
    with pytest.raises(SaltInvocationError, match="good for one roll.*`salt-run fleet.roll web` continues"):
        plans.find(saved.id)


def test_a_plan_of_another_fleet_is_refused(store, saved):
    with pytest.raises(SaltInvocationError, match="is for fleet web, not for db"):
        Plans(store, "db").find(saved.id)


@pytest.mark.parametrize("plan", ["p12345678", "", 12345678, None])
def test_an_unknown_plan_is_an_error_that_names_those_that_are_there(plans, saved, plan):
    with pytest.raises(SaltInvocationError, match=f"there are: {saved.id} of 2027-01-15 08:00:00"):
        plans.find(plan)


def test_old_plans_are_deleted_but_not_those_of_other_fleets(store, plans, saved):
    other = Plans(store, "db", token=lambda: "ffffffff")
    other.save(made_from(), [], MONDAY)
    made = [plans.save(made_from(), [], MONDAY + number) for number in range(1, MAX_PLANS + 1)]
    for plan in made:
        plans.find(plan)
    with pytest.raises(SaltInvocationError, match="there is no plan"):
        plans.find(saved.id)
    last = plans.save(made_from(), [], MONDAY + MAX_AGE + MAX_PLANS + 1)
    assert plans.find(last).id == last
    with pytest.raises(SaltInvocationError, match="there is no plan"):
        plans.find(made[-1])
    assert other.find("pffffffff").fleet == "db"


def test_an_id_is_no_number_to_salts_command_line():
    assert Plans(Store.open("sqlite://"), "web").save(made_from(), [], MONDAY).startswith("p")
