"""Ask the machines of fleets what on them is no longer as their image says.

What a machine answers is not believed about its image, whose digest the master names, and is cut and cleaned before
it is printed or kept. No answer is not taken for a clean one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salt.exceptions import SaltException, SaltInvocationError

from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.drive.effects import in_parallel
from saltext.immutable.fleet.interventions import DRIFTS, Care, Tell
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.minions import NoAnswer
from saltext.immutable.text import plain

WITHIN = 60.0
"""Seconds for a look at metadata."""
FULL_WITHIN = 900.0
"""Seconds for a look at all content."""
ITEMS = 200
"""Of one machine; the counts tell of all."""
TOLD = 20
"""Items that an event bears."""
NAMED = 3
"""Items that the journal names."""
Target = tuple[Record, str]
"""A machine, and the digest of the image that it should run."""
WORDS = ("kind", "what", "detail", "owner", "layer")


@dataclass(frozen=True)
class Finding:
    """What a look at one machine told."""

    drift: tuple[Mapping[str, str], ...] = ()
    counts: Mapping[str, int] | None = None
    """Kinds of drift, and how many of each."""
    proven: bool = False
    """It runs the image that it should, as far as its manifest goes."""
    seconds: float = 0.0
    unknown: str | None = None
    """Why nothing could be learned."""

    @property
    def summary(self) -> str:
        """Say in a line what drifted."""
        total = sum((self.counts or {}).values())
        named = [f"{item['kind']} {item['what']} {item.get('detail', '')}".strip() for item in self.drift[:NAMED]]
        return f"{total} drifted: " + ", ".join([*named, *(["..."] if total > len(named) else [])])


def survey(
    operations: Operations,
    tell: Tell,
    name: str,
    *,
    full: bool = False,
    taint: bool = False,
    minion: str | None = None,
) -> dict[str, Any]:
    """Look at the machines of a fleet, or of all; ``retcode`` of what is returned is 1 unless all are clean."""
    targets = _targets(operations, name)
    if minion is not None:
        targets = {minion: _known(targets, minion)}
    said = in_parallel({key: _question(operations, target, full) for key, target in targets.items()})
    there = _targets(operations, name)  # the others were replaced meanwhile
    found = {key: judged(said[key], image) for key, (_, image) in targets.items() if key in there}
    report = _Report(operations, tell)
    for minion_id, finding in found.items():
        report.write(targets[minion_id][0], finding, taint)
    drifted = [key for key, finding in found.items() if finding.drift]
    unknown = [key for key, finding in found.items() if finding.unknown is not None]
    return {
        "machines": {key: _told(targets[key][0], finding) for key, finding in found.items()},
        "clean": len(found) - len(drifted) - len(unknown),
        "drifted": drifted,
        "unknown": unknown,
        "retcode": int(bool(drifted or unknown)),
    }


def judged(answer: object, image: str) -> Finding:
    """Return what an answer says about a machine that should run ``image`` (a digest).

    One that answers but cannot be compared, since its seal or this pack is gone or broken, is not as its image says.
    """
    if isinstance(answer, NoAnswer):
        return Finding(unknown=_line(str(answer)))
    if not isinstance(answer, Mapping) or not isinstance(answer.get("drift"), list | tuple):
        said = _line(str(answer) if isinstance(answer, SaltException) else f"immutable.drift says {answer!r}")
        detail = f"it cannot be compared with this image: {said}"
        return Finding(({"kind": "image", "what": image[:12], "detail": detail},), {"image": 1})
    items = [_item(item) for item in answer["drift"][:ITEMS]]
    counts = _counts(answer.get("counts"), answer["drift"][:ITEMS])
    proven = answer.get("proven") is True
    if not proven:
        items.insert(0, {"kind": "image", "what": image[:12], "detail": "it cannot prove that it runs this image"})
        counts["image"] = counts.get("image", 0) + 1
    if counts and not items:
        items = [{"kind": kind, "what": f"{number} that it does not name"} for kind, number in counts.items()]
    seconds = answer.get("seconds")
    return Finding(tuple(items), counts, proven, float(seconds) if isinstance(seconds, int | float) else 0.0)


def _item(item: object) -> dict[str, str]:
    if not isinstance(item, Mapping):
        return {"kind": "unknown", "what": _line(repr(item))}
    told = {word: _line(str(item[word])) for word in WORDS if item.get(word) not in (None, "")}
    return {"kind": "unknown", "what": "", **told}


def _counts(said: object, items: Sequence[object]) -> dict[str, int]:
    """Return the machine's counts; where they say less than its items, those count."""
    counts: dict[str, int] = {}
    for item in map(_item, items):
        counts[item["kind"]] = counts.get(item["kind"], 0) + 1
    for kind, number in list(said.items())[:50] if isinstance(said, Mapping) else []:
        if isinstance(number, int) and number > 0:
            counts[_line(str(kind))] = max(number, counts.get(_line(str(kind)), 0))
    return counts


def _line(said: str) -> str:
    return plain(said[:300]).replace("\n", "\\n")


def _targets(operations: Operations, name: str) -> dict[str, Target]:
    """Return the machines to look at: those that were ready once and are not on their way out."""
    found = {}
    for fleet in operations.names() if name == "all" else [name]:
        ledger = operations.ledger(fleet)
        generations = ledger.generations()
        for record in ledger.records().values():
            if record.ready_since is not None and not record.doomed:
                found[record.minion_id] = (record, generations[record.generation].image)
    return found


def _known(targets: Mapping[str, Target], minion: str) -> Target:
    if minion not in targets:
        there = ", ".join(targets) or "none"
        raise SaltInvocationError(f"minion: {minion!r} is no machine at work; there are: {there}")
    return targets[minion]


def _question(operations: Operations, target: Target, full: bool) -> Callable[[], Any]:
    record, image = target
    within = FULL_WITHIN if full else WITHIN
    return lambda: operations.minions.ask(record.minion_id, "immutable.drift", within, digest=image, full=full)


def _told(record: Record, finding: Finding) -> dict[str, Any]:
    if finding.unknown is not None:
        return {"fleet": record.fleet, "unknown": finding.unknown}
    drift = [dict(item) for item in finding.drift]
    known = {"proven": finding.proven, "seconds": finding.seconds}
    return {"fleet": record.fleet, "drift": drift, "counts": dict(finding.counts or {}), **known}


class _Report:
    """Writes down and says what was found."""

    def __init__(self, operations: Operations, tell: Tell) -> None:
        self._operations, self._tell = operations, tell
        self._audit, self._care = operations.audit, Care(operations, tell)

    def write(self, record: Record, finding: Finding, taint: bool) -> None:
        """Write down a finding where it is news, tell of each drift, and taint if that is wanted."""
        if finding.unknown is not None:
            return
        if not finding.drift:
            last = self._audit.last(record.minion_id, DRIFTS)
            if last and last.what == "drift":
                self._audit.write(self._deed("no drift", record, ""))
            return
        self._audit.write_change(self._deed("drift", record, finding.summary), DRIFTS)
        data = {"fleet": record.fleet, "minion_id": record.minion_id, "counts": dict(finding.counts or {})}
        items = [dict(item) for item in finding.drift[:TOLD]]
        self._tell(f"drift {record.minion_id}: {finding.summary}", f"drift/{record.minion_id}", **data, items=items)
        if taint:
            self._care.mark("drift", self._deed("tainted", record, finding.summary))

    def _deed(self, what: str, record: Record, reason: str) -> AuditEntry:
        return self._operations.audit_entry(what, record.minion_id, record.fleet, reason)
