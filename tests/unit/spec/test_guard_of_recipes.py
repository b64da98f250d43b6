"""The key ``guard`` of a recipe: what it adds to the guard's tables, and what it may not add."""

from __future__ import annotations

from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions
from saltext.immutable.spec.model import Guard

DANGEROUS = "a caller can write files, run commands or reach other hosts with it; "


def recipe_with(**guard: Any) -> Guard:
    base = {"from": {"debian": "bookworm"}, "guard": guard}
    return definitions({"immutable": {"recipes": {"base": base}}}).recipes["base"].guard


def refused(**guard: Any) -> str:
    with pytest.raises(SaltInvocationError) as err:
        recipe_with(**guard)
    return str(err.value)


def test_a_recipe_allows_and_denies():
    found = recipe_with(allow=["shop.open", "service.[ed]*able"], deny=["service.st?p", "saltutil.*"], dry_runs=False)
    assert found == Guard(("shop.open", "service.[ed]*able"), ("service.st?p", "saltutil.*"), dry_runs=False)


def test_a_dangerous_function_needs_a_second_key():
    assert refused(allow=["shop.*", "cmd.run"]) == (
        f"immutable:recipes:base:guard:allow: cmd.run: {DANGEROUS}take it out, or write allow_dangerous: true beside it"
    )
    assert recipe_with(allow=["cmd.run"], allow_dangerous=True).allow == ("cmd.run",)


def test_of_many_dangerous_functions_the_first_are_named():
    error = refused(allow=["*.*"])
    assert "guard:allow: aliases.rm_alias, aliases.set_target, beacons.add, beacons.delete, " in error
    assert " more: a caller can" in error


@pytest.mark.parametrize(
    "glob",
    """cmd.* c[lm]d.run ?md.shell *.run file.wr* saltutil.sync_* *.apply sqlite3.modify nftables.* tls.create_ca
    postfix.set_main pkg.latest_version service.st*t disk.blkid user.add zfs.destroy""".split(),  # noqa: SIM905
)
def test_no_glob_hides_it(glob):
    assert DANGEROUS in refused(allow=[glob])


def test_a_bracket_that_holds_the_dot_is_no_glob_of_ours():
    assert "'cmd[.]run' is not a function" in refused(allow=["cmd[.]run"])
    assert "'cmd[x.y]run' is not a function" in refused(allow=["cmd[x.y]run"])


def test_what_a_master_needs_cannot_be_denied():
    assert refused(deny=["test.ping"]) == (
        "immutable:recipes:base:guard:deny: test.ping: without it the machines cannot be managed; take it out"
    )
