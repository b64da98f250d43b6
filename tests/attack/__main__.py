"""Every attack that we know of, tried on real machines: ``make attack``.

Prints a table of who tried what and how it ended, and writes build/attacks.json:
``{"rows": [{"who", "what", "expected", "ended"}], "seconds"}``. The exit code is 1 if one ended otherwise than the
documents promise, or could not be tried. Needs root.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "build/attacks.json"
OPERATOR, NEIGHBOUR = "who may send jobs", "another minion of the master"
ON_MACHINE, ON_HOST, PILLAR = "root on the machine", "root on the machine, against its host", "who may write the pillar"
AGAINST_OTHERS = "root on the machine, against commands on others"
TESTS = {
    "integration/test_guarded.py::test_no_path_ends_unnoticed": OPERATOR,
    "integration/test_neighbour.py::test_what_a_neighbour_forges_changes_nothing": NEIGHBOUR,
    "unit/minions/test_proven_answers.py::test_nothing_else_does_and_it_raises_an_alarm": NEIGHBOUR,
    "unit/minions/test_proven_answers.py::test_what_a_machine_signs_stops_nobody": AGAINST_OTHERS,
    "unit/guard/test_envelope.py::test_a_job_is_refused_and_loses_what_was_wrong": OPERATOR,
    "unit/guard/test_units.py::test_nothing_else_may_be": OPERATOR,
    "unit/fleet/test_settings_of_fleets.py::test_wrong_settings_are_named_by_their_path": PILLAR,
    "unit/spec/test_wrong_pillars.py::test_mutable_may_not_hold_a_folder_of_the_system": PILLAR,
    "unit/spec/test_wrong_pillars.py::test_mutable_may_name_nothing_of_the_image_itself": PILLAR,
    "unit/spec/test_launch_policy.py::test_what_never_becomes_writable": PILLAR,
    "unit/spec/test_wrong_pillars.py::test_an_environment_may_not_lead_out_of_the_cache": PILLAR,
    "unit/spec/test_wrong_pillars.py::test_a_message_is_short_and_nothing_in_it_reaches_the_terminal": PILLAR,
    "integration/test_drift.py::test_what_was_done_is_found": ON_MACHINE,
    "integration/test_machines.py::test_programs_run_only_from_the_image_and_from_where_it_says": ON_MACHINE,
    "integration/test_machines.py::test_root_in_a_machine_does_not_reach_the_hosts_disks": ON_HOST,
    "integration/test_machines.py::test_root_in_a_machine_changes_nothing_of_its_host": ON_HOST,
    "integration/test_machines.py::test_root_in_a_machine_is_nobody_on_its_host_and_in_the_other": ON_HOST,
    "integration/test_machines.py::test_machines_do_not_reach_each_other_and_their_host_reaches_both": ON_HOST,
    "integration/test_machines.py::test_a_machine_reaches_those_ports_of_its_host_that_are_open": ON_HOST,
}
"""Tests that attack, and who does so; of test_guarded.py its rows say it. Those of ``unit`` need no machine."""
_STARTS = {"machine": ON_MACHINE, "pillar": PILLAR}


@dataclass(frozen=True)
class Attack:
    """One attack that was tried."""

    who: str
    what: str
    expected: str
    ended: str
    """``as expected``, or the last line of what was wrong."""

    @property
    def well(self) -> bool:
        """Whether it ended as the documents promise."""
        return self.ended == "as expected"


class Onlooker:
    """A plug-in of pytest that keeps what was tried and how it ended."""

    def __init__(self) -> None:
        self.attacks: list[Attack] = []
        self._rows: dict[str, tuple[str, str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Know each attack before it is tried."""
        for item in items:
            self._rows[item.nodeid] = described(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in how one ended: by its call, or by a set-up that failed or was skipped."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            wrong = str(report.longrepr).strip().splitlines()[-1] if report.longrepr else report.outcome
            self.attacks.append(Attack(*self._rows[report.nodeid], "as expected" if report.passed else wrong))


def described(item: pytest.Item) -> tuple[str, str, str]:
    """Return who tries what, and how that should end."""
    name = item.nodeid.partition("[")[0].partition("tests/")[2]
    params = getattr(item, "callspec", None)
    if params and "row" in params.params:
        row = params.params["row"]
        return _STARTS.get(row.start, OPERATOR), row.name, row.outcome
    what = name.partition("::test_")[2].replace("_", " ") + (f": {params.id}" if params else "")
    who = TESTS[name]
    return who, what, "found" if "is_found" in name else "refused" if who in (PILLAR, OPERATOR) else "stopped"


def table(attacks: Iterable[Attack]) -> str:
    """Return how many attacks of each kind of attacker ended how, as a table in Markdown."""
    tried, well = Counter(), Counter()
    for attack in attacks:
        tried[attack.who, attack.expected] += 1
        well[attack.who, attack.expected] += attack.well
    lines = ["| attacker | should be | tried | ended so |", "|---|---|---|---|"]
    for who, expected in tried:
        lines.append(f"| {who} | {expected} | {tried[who, expected]} | {well[who, expected]} |")
    return "\n".join([*lines, f"| all | | {tried.total()} | {well.total()} |"])


def main(options: list[str]) -> int:
    """Try all attacks and report them; return the exit code."""
    began, onlooker = time.monotonic(), Onlooker()
    names = [str(ROOT / "tests" / name) for name in TESTS]
    code = pytest.main(["-q", "--no-header", "--tb=short", *names, *options], plugins=[onlooker])
    rows = [asdict(attack) for attack in onlooker.attacks]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"rows": rows, "seconds": round(time.monotonic() - began)}, indent=1))
    print(f"\n{table(onlooker.attacks)}\n")
    for attack in onlooker.attacks:
        if not attack.well:
            print(f"NOT AS PROMISED: {attack.who}: {attack.what}: should be {attack.expected}: {attack.ended}")
    print(f"all rows: {REPORT}")
    return int(code != 0 or not rows or not all(attack.well for attack in onlooker.attacks))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
