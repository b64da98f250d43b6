"""The key ``tests`` of a recipe."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError
from salt.modules.saltcheck import SaltCheck

from saltext.immutable.spec import definitions
from saltext.immutable.spec.model import ImageTest
from saltext.immutable.spec.tests import ASSERTIONS


def read(**tests):
    recipe = {"from": {"debian": "bookworm"}, "states": ["web"], "tests": tests}
    return definitions({"immutable": {"recipes": {"web": recipe}}}).recipes["web"].tests


def test_a_test_is_one_check_of_saltcheck_or_one_of_its_files():
    check = {"module_and_function": "service.status", "args": ["nginx"], "assertion": "assertTrue"}
    compare = {"module_and_function": "pkg.version", "args": ["nginx"], "assertion": "assertIn", "expected": "1."}
    found = read(
        inside=[{"saltcheck": True}, {"saltcheck": "web.proxy"}, compare], booted=[{"name": "serves", **check}]
    )
    everything, one, version = found.inside
    assert (everything, one) == (ImageTest("saltcheck", sls=""), ImageTest("saltcheck web.proxy", sls="web.proxy"))
    assert (version.name, version.sls, version.check["expected_return"]) == ("pkg.version nginx", None, "1.")
    assert found.booted == (ImageTest("serves", check={**check, "print_result": True}),)


def test_several_assertions_may_judge_one_answer():
    groups = [
        {"assertion": "assertEqual", "assertion_section": "web:version", "expected": "2"},
        {"assertion": "assertNotEmpty"},
    ]
    (test,) = read(inside=[{"module_and_function": "pillar.items", "assertions": groups}]).inside
    assert [one["assertion"] for one in test.check["assertions"]] == ["assertEqual", "assertNotEmpty"]


def test_salt_knows_each_assertion_that_is_accepted_and_no_other():
    assert sorted(SaltCheck().assertions_list) == sorted(ASSERTIONS)


OF_NGINX = {"module_and_function": "service.status", "args": ["nginx"]}


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({}, "module_and_function is missing; write module_and_function: service.status"),
        ({"saltcheck": False}, ":saltcheck: must be true or the name of an SLS, not bool False; write true"),
        ({"saltcheck": "web", "args": [1]}, ":args: no such key; known here: saltcheck"),
        (OF_NGINX, ": assertion is missing; write assertion: assertTrue"),
        (
            {**OF_NGINX, "assertion": "assertTru"},
            ":assertion: saltcheck has no 'assertTru'; did you mean 'assertTrue'?",
        ),
        ({**OF_NGINX, "assertion": "assertEqual"}, ": assertEqual needs a value to compare with; write expected: ..."),
        (
            {**OF_NGINX, "assertions": []},
            ":assertions: the list is empty: a test needs an assertion; write assertion: assertTrue",
        ),
        (
            {**OF_NGINX, "assertion": "assertIn", "expected": 1, "expected_return": 2},
            ": the expected value is given twice; write expected only",
        ),
        (
            {"module_and_function": "nginx", "assertion": "assertTrue"},
            "'nginx' is not a function; write service.status",
        ),
    ],
)
def test_a_test_that_could_prove_nothing_is_refused(entry, error):
    with pytest.raises(SaltInvocationError) as err:
        read(inside=[entry])
    assert "immutable:recipes:web:tests:inside:0" in str(err.value)
    assert error in str(err.value)


def test_names_are_unique_in_each_phase():
    check = {**OF_NGINX, "assertion": "assertTrue"}
    with pytest.raises(SaltInvocationError, match="inside: two tests are called 'service.status nginx'"):
        read(inside=[check, check])
    assert len(read(inside=[check], booted=[check]).booted) == 1


def test_without_states_nothing_runs_inside():
    recipe = {"from": {"debian": "bookworm"}, "tests": {"inside": [{"saltcheck": "web"}]}}
    with pytest.raises(
        SaltInvocationError, match="after the recipe's states, but it has none; write them below booted"
    ):
        definitions({"immutable": {"recipes": {"web": recipe}}})


def test_saltcheck_of_everything_needs_states_to_know_of_what():
    recipe = {"from": {"debian": "bookworm"}, "tests": {"booted": [{"saltcheck": True}]}}
    with pytest.raises(SaltInvocationError, match="booted: saltcheck: true means the recipe's states, but it has none"):
        definitions({"immutable": {"recipes": {"web": recipe}}})


def test_states_may_have_to_be_idempotent():
    assert (read().idempotent, read(idempotent=True).idempotent) == (False, True)
    assert read(idempotent="noted").idempotent == "noted"
    with pytest.raises(SaltInvocationError, match="tests:idempotent"):
        read(idempotent="loudly")
    recipe = {"from": {"debian": "bookworm"}, "tests": {"idempotent": True}}
    with pytest.raises(SaltInvocationError, match="tests:idempotent: it applies the recipe's states again"):
        definitions({"immutable": {"recipes": {"web": recipe}}})


@pytest.mark.parametrize("unit", ["auditd", "auditd.service", "getty@tty1.service"])
def test_units_that_a_bake_does_not_start(unit):
    recipe = {"from": {"debian": "bookworm"}, "states": ["web"], "at_boot": [unit]}
    assert definitions({"immutable": {"recipes": {"web": recipe}}}).recipes["web"].at_boot == (unit,)


@pytest.mark.parametrize("unit", ["two words", "/etc/passwd", "a;b", ""])
def test_what_is_no_unit_is_refused(unit):
    recipe = {"from": {"debian": "bookworm"}, "states": ["web"], "at_boot": [unit]}
    with pytest.raises(SaltInvocationError, match="recipes:web:at_boot"):
        definitions({"immutable": {"recipes": {"web": recipe}}})


def test_paths_that_may_hold_the_identity_of_the_bake():
    recipe = {"from": {"debian": "bookworm"}, "states": ["web"], "bake_identity": {"/etc/issue.net": "ok"}}
    assert definitions({"immutable": {"recipes": {"web": recipe}}}).recipes["web"].bake_identity == ("/etc/issue.net",)


@pytest.mark.parametrize("given", [{"etc/issue.net": "ok"}, {"/etc/issue.net": "no"}, {"/etc/issue.net": True}, "ok"])
def test_they_are_absolute_and_ok(given):
    recipe = {"from": {"debian": "bookworm"}, "states": ["web"], "bake_identity": given}
    with pytest.raises(SaltInvocationError, match="recipes:web:bake_identity"):
        definitions({"immutable": {"recipes": {"web": recipe}}})
