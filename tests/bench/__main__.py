"""What it costs, against what it would cost without us: ``make bench``, ``make bench ONLY=name,...``.

Writes build/bench.json: ``{name: {"value", "unit", "baseline", "ratio", "runs"}}``. Each run measures the figure and
its baseline right after one another on the same machine, so that the ratio holds wherever it is measured; ``value``
and ``ratio`` are those of the medians. A figure whose program is missing is ``{"skipped": why}``, one that cannot be
measured ``{"failed": why}``, and then the exit code is 1. Needs root. IMMUTABLE_HOME names another folder for the
private master.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.starter import PlainEstate
from tests.bench import baking, packing
from tests.bench.figures import FIGURES, Figure, first_image
from tests.support.estate import Estate

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "build/bench.json"


def main(names: list[str]) -> None:
    """Measure the named figures, or all."""
    unknown = set(names) - set(FIGURES)
    if unknown:
        sys.exit(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    report = {}
    home = ROOT / os.environ.get("IMMUTABLE_HOME", "build/estate")
    with PlainEstate(home, pillar=ROOT / "pillar", states=ROOT / "examples/states") as estate:
        print("baking what is measured with", flush=True)
        baking.lay(estate)
        first_image(estate)
        for name in names or FIGURES:
            report[name] = told = attempted(FIGURES[name], estate)
            print(f"{name:<36} {line(told)}", flush=True)
            REPORT.write_text(json.dumps(report, indent=1))
    if any("failed" in told for told in report.values()):
        sys.exit(1)


def attempted(figure: Figure, estate: Estate) -> dict[str, Any]:
    """Return what the report says of one figure, also where it could not be measured: the others can."""
    try:
        with figure.ready(estate):
            return measured(figure, estate)
    except packing.Missing as err:
        return {"skipped": str(err)}
    except Exception as err:
        traceback.print_exc()
        return {"failed": f"{type(err).__name__}: {err}"}


def line(told: Mapping[str, Any]) -> str:
    """Return one figure as it is printed."""
    if "value" in told:
        return f"{told['value']:>8} {told['unit']:<6} {told['ratio']} x {told['baseline']}"
    return ", ".join(f"{word}: {why.splitlines()[0]}" for word, why in told.items())


def measured(figure: Figure, estate: Estate) -> dict[str, Any]:
    """Return what came of all runs of one figure."""
    runs = [figure.measure(estate) for _ in range(figure.runs)]
    ours, bare = (sorted(column)[figure.runs // 2] for column in zip(*runs, strict=True))
    return {
        "value": round(figure.value(ours, bare), 3),
        "unit": figure.unit,
        "baseline": figure.baseline,
        "ratio": round(ours / bare, 3),
        "runs": [
            {figure.measured: round(one, 3), f"baseline_{figure.measured}": round(other, 3)} for one, other in runs
        ],
    }


if __name__ == "__main__":
    # Bakes of ours in this process must see the pack as salt-run sees it: installed, not as the checkout we stand in.
    sys.path.append(sys.path.pop(0))
    main([name for word in sys.argv[1:] for name in word.split(",") if name])
