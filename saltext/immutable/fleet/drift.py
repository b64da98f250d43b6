"""``fleet.drift``: ask the machines of fleets for their drift.

The master passes the digest of the image, so a machine cannot choose what it is compared with. Answers are shortened
and made printable. A machine that does not answer is unknown, not clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salt.exceptions import SaltException, SaltInvocationError

from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.drive.threads import in_parallel
from saltext.immutable.fleet.interventions import DRIFT_KINDS, Interventions, Notify
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.minions import NoAnswer
from saltext.immutable.text import plain

TIMEOUT = 60.0
"""Seconds for a check by metadata."""
FULL_TIMEOUT = 900.0
"""Seconds for a check that reads all content."""
MAX_ITEMS = 200
"""How many items of one machine are kept; the counts include all."""
MAX_COUNT = 10**9
"""The largest number of items that is believed."""
MAX_EVENT_ITEMS = 20
"""How many items an event has."""
MAX_SUMMARY_ITEMS = 3
"""How many items an entry of the audit log names."""
Target = tuple[Record, str]
"""A machine, and the digest of the image that it should run."""
STRANGER = "it runs, and the store does not know it, so it is not known which image it should run"
"""Why a machine that the store does not know is unknown."""
ITEM_KEYS = ("kind", "what", "detail", "owner", "layer")


@dataclass(frozen=True)
class Finding:
    """The result of the check of one machine."""

    drift: tuple[Mapping[str, str], ...] = ()
    counts: Mapping[str, int] | None = None
    """Kind of drift to number of items."""
    proven: bool = False
    """Whether the digest proves what the machine was compared with."""
    seconds: float = 0.0
    unknown: str | None = None
    """Why the machine could not be checked."""

    @property
    def summary(self) -> str:
        """Return a line that names the first items."""
        total = sum((self.counts or {}).values())
        first = self.drift[:MAX_SUMMARY_ITEMS]
        named = [f"{item['kind']} {item['what']} {item.get('detail', '')}".strip() for item in first]
        return f"{total} drifted: " + ", ".join([*named, *(["..."] if total > len(named) else [])])


def check(
    operations: Operations,
    notify: Notify,
    name: str,
    *,
    full: bool = False,
    taint: bool = False,
    minion: str | None = None,
) -> dict[str, Any]:
    """Check the machines of a fleet, or of ``all``, for drift.

    ``full``: read all content; ``taint``: taint machines with drift; ``minion``: check only this machine.
    Machines that run and that the store does not know are not checked: they are unknown. Keys of the result:
    ``machines``, ``clean``, ``drifted``, ``unknown``, ``retcode`` (0 if all machines are clean).
    """
    targets, strangers = _targets(operations, name), _strangers(operations, name)
    if minion is not None:
        strangers = {key: fleet for key, fleet in strangers.items() if key == minion}
        targets = {} if strangers else {minion: _target(targets, minion)}
    answers = in_parallel({key: _call(operations, target, full) for key, target in targets.items()})
    Interventions(operations, notify).report_forged({key: record.fleet for key, (record, _) in targets.items()})
    remaining = _targets(operations, name)  # without the machines that were replaced meanwhile
    found = {key: evaluate(answers[key], image) for key, (_, image) in targets.items() if key in remaining}
    recorder = _Recorder(operations, notify)
    for minion_id, finding in found.items():
        recorder.record(targets[minion_id][0], finding, taint)
    drifted = [key for key, finding in found.items() if finding.drift]
    unknown = [key for key, finding in found.items() if finding.unknown is not None]
    machines = {key: _data(targets[key][0], finding) for key, finding in found.items()}
    return {
        "machines": machines | {key: {"fleet": fleet, "unknown": STRANGER} for key, fleet in strangers.items()},
        "clean": len(found) - len(drifted) - len(unknown),
        "drifted": drifted,
        "unknown": [*unknown, *strangers],
        "retcode": int(bool(drifted or unknown or strangers)),
    }


def evaluate(answer: object, image: str) -> Finding:
    """Return the finding for the answer of a machine that should run ``image`` (a digest).

    ``answer``: the result of ``immutable.drift``, or the exception. A machine that answers but cannot be compared (its
    seal or this pack is missing or damaged) has drift of kind ``image``.
    """
    if isinstance(answer, NoAnswer):
        return Finding(unknown=_line(str(answer)))
    if not isinstance(answer, Mapping) or not isinstance(answer.get("drift"), list | tuple):
        error = _line(str(answer) if isinstance(answer, SaltException) else f"immutable.drift returned {answer!r}")
        detail = f"it cannot be compared with this image: {error}"
        return Finding(({"kind": "image", "what": image[:12], "detail": detail},), {"image": 1})
    items = [_item(item) for item in answer["drift"][:MAX_ITEMS]]
    counts = _counts(answer.get("counts"), answer["drift"][:MAX_ITEMS])
    proven = answer.get("proven") is True
    if not proven:
        items.insert(0, {"kind": "image", "what": image[:12], "detail": "it cannot prove that it runs this image"})
        counts["image"] = counts.get("image", 0) + 1
    if counts and not items:
        items = [{"kind": kind, "what": f"{number} not named by the machine"} for kind, number in counts.items()]
    return Finding(tuple(items), counts, proven, _seconds(answer.get("seconds")))


def _seconds(reported: object) -> float:
    """Return a time that a machine reports; 0 for what is none, such as NaN."""
    right = isinstance(reported, int | float) and not isinstance(reported, bool) and 0 <= reported <= FULL_TIMEOUT
    return float(reported) if right else 0.0  # type: ignore[arg-type]


def _item(item: object) -> dict[str, str]:
    if not isinstance(item, Mapping):
        return {"kind": "unknown", "what": _line(repr(item))}
    values = {key: _line(str(item[key])) for key in ITEM_KEYS if item.get(key) not in (None, "")}
    return {"kind": "unknown", "what": "", **values}


def _counts(reported: object, items: Sequence[object]) -> dict[str, int]:
    """Return kind to number: as the machine reports it, but not less than the items that it listed."""
    counts: dict[str, int] = {}
    for item in map(_item, items):
        counts[item["kind"]] = counts.get(item["kind"], 0) + 1
    for kind, number in list(reported.items())[:50] if isinstance(reported, Mapping) else []:
        if isinstance(number, int) and not isinstance(number, bool) and number > 0:
            counts[_line(str(kind))] = max(min(number, MAX_COUNT), counts.get(_line(str(kind)), 0))
    return counts


def _line(text: str) -> str:
    return plain(text[:300]).replace("\n", "\\n")


def _targets(operations: Operations, name: str) -> dict[str, Target]:
    """Return minion id to target of the machines to check: those that were ready and are not being destroyed."""
    found = {}
    for fleet in operations.names() if name == "all" else [name]:
        ledger = operations.ledger(fleet)
        generations = ledger.generations()
        for record in ledger.records().values():
            if record.ready_since is not None and not record.doomed:
                found[record.minion_id] = (record, generations[record.generation].image)
    return found


def _strangers(operations: Operations, name: str) -> dict[str, str]:
    """Return minion id to fleet of the machines that run and that the store does not know."""
    fleets = operations.names() if name == "all" else [name]
    return {minion_id: fleet for fleet in fleets for minion_id in operations.strangers(fleet)}


def _target(targets: Mapping[str, Target], minion: str) -> Target:
    if minion not in targets:
        known = ", ".join(targets) or "none"
        raise SaltInvocationError(f"minion: {minion!r} is not a machine that serves; there are: {known}")
    return targets[minion]


def _call(operations: Operations, target: Target, full: bool) -> Callable[[], Any]:
    record, image = target
    within = FULL_TIMEOUT if full else TIMEOUT
    return lambda: operations.minions.ask(record.minion_id, "immutable.drift", within, digest=image, full=full)


def _data(record: Record, finding: Finding) -> dict[str, Any]:
    if finding.unknown is not None:
        return {"fleet": record.fleet, "unknown": finding.unknown}
    drift = [dict(item) for item in finding.drift]
    known = {"proven": finding.proven, "seconds": finding.seconds}
    return {"fleet": record.fleet, "drift": drift, "counts": dict(finding.counts or {}), **known}


class _Recorder:
    """Writes findings to the audit log, fires events and taints machines."""

    def __init__(self, operations: Operations, notify: Notify) -> None:
        self._operations, self._notify = operations, notify
        self._audit, self._interventions = operations.audit, Interventions(operations, notify)

    def record(self, record: Record, finding: Finding, taint: bool) -> None:
        """Write a finding to the audit log if it has changed; fire an event and, if ``taint``, taint for each drift."""
        if finding.unknown is not None:
            return
        if not finding.drift:
            last = self._audit.last(record.minion_id, DRIFT_KINDS)
            if last and last.what == "drift":
                self._audit.write(self._entry("no drift", record, ""))
            return
        self._audit.write_change(self._entry("drift", record, finding.summary), DRIFT_KINDS)
        data = {"fleet": record.fleet, "minion_id": record.minion_id, "counts": dict(finding.counts or {})}
        items = [dict(item) for item in finding.drift[:MAX_EVENT_ITEMS]]
        self._notify(f"drift {record.minion_id}: {finding.summary}", f"drift/{record.minion_id}", **data, items=items)
        if taint:
            self._interventions.add_taint("drift", self._entry("tainted", record, finding.summary))

    def _entry(self, what: str, record: Record, reason: str) -> AuditEntry:
        return self._operations.audit_entry(what, record.minion_id, record.fleet, reason)
