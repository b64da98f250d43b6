"""What people read of a fleet at a terminal: the data of `report` as text. Any width will do, and any content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from saltext.immutable.text import plain

Data = Mapping[str, Any]

NARROWEST = 30
"""Columns that are used even where a terminal says that it has fewer."""
BAR = 20
_REASON = 36
"""Columns that a reason needs beside its machine; with fewer it stands below."""
_CONSOLE = 25
"""Lines of a console that are shown."""
_SHOWN = 12
"""Entries of one kind of difference that are named; ``--out=json`` has all."""


def status(told: Data, width: int) -> str:
    """Return a fleet, or all fleets, as a table each."""
    width = max(width, NARROWEST)
    if "fleets" not in told:
        return "\n".join(_fleet(told, width))
    blocks = [list(_fleet(fleet, width)) for fleet in told["fleets"].values()]
    adopted = [f"{minion_id}: {'; '.join(reasons)}" for minion_id, reasons in told["adopted"].items()]
    if adopted:
        title = "tainted machines that no fleet launched"
        blocks.append([title, *(line for one in adopted for line in _wrapped(one, width, 2))])
    return "\n\n".join("\n".join(lines) for lines in blocks) or "there is no fleet"


def _fleet(told: Data, width: int) -> Iterator[str]:
    for line in _head(told):
        yield from _wrapped(line, width)
    if told["machines"]:
        yield ""
        yield from table(_COLUMNS, [_row(machine) for machine in told["machines"]], width)


def _head(told: Data) -> Iterator[str]:
    """Say what the fleet is and what happens to it."""
    wanted = "" if told.get("wanted") is None else f" of {told['wanted']}"
    runs = f"generation {told['generation']}, {told['image']}" if told["generation"] else "nothing was rolled out yet"
    yield f"fleet {told['fleet']}: {told['size']}{wanted} machines, {runs}"
    yield from (f"revoked: {why}" for why in told.get("revoked", ()))
    if told.get("size_set"):
        yield f"size: {told['size_set']}"
    if told["rollout"]:
        yield from _rollout(told["rollout"])
    yield from (f"order: {order}" for order in told.get("orders", ()))
    if told.get("unlisted"):
        yield str(told["unlisted"])
    if told["held_by"]:
        yield f"at work: {told['held_by']}"


def _rollout(rollout: Data) -> Iterator[str]:
    name = f"{rollout['kind']} {rollout['id']}"
    by = f" by {rollout['paused_by']}" if rollout.get("paused_by") else ""
    if rollout.get("progress"):
        yield f"{name}: {rollout['outcome']}{by}"
        yield f"  {bar(*rollout['progress'])} {rollout['verdict']}"
    else:
        yield f"{name} of {rollout['started']}: {rollout['outcome']}{by} after {span(rollout['seconds'])}"
    if rollout["reason"]:
        yield f"  {rollout['reason']}"


def bar(done: int, whole: int) -> str:
    """Return progress as people see it: 4 of 6 is ``[#############.......]``."""
    full = BAR if whole <= 0 else min(BAR, BAR * done // whole)
    return f"[{'#' * full}{'.' * (BAR - full)}]"


_COLUMNS = ("MACHINE", "GEN", "IMAGE", "PHASE", "HEALTH", "TRAFFIC", "AGE")


def _row(machine: Data) -> tuple[list[str], list[str]]:
    """Return the cells of a machine, and what else is to be said of it."""
    cells = [machine.get(key) for key in ("minion_id", "generation", "image", "phase", "health", "traffic")]
    notes = [f"tainted: {reason}" for reason in machine.get("tainted", ())]
    notes += [f"protected: {machine['protected']}"] if machine.get("protected") else []
    notes += [f"kept for another {span(machine['kept_for'])}"] if machine.get("kept_for") is not None else []
    notes += [str(machine["note"])] if machine.get("note") else []
    return ["" if cell is None else line(str(cell)) for cell in cells] + [span(machine["age"])], notes


def table(head: Sequence[str], rows: Sequence[tuple[list[str], list[str]]], width: int) -> Iterator[str]:
    """Yield rows below their heads with what is to be said of each; where that is too wide, a paragraph a row.

    Columns in which no row has anything are left out.
    """
    used = [at for at in range(len(head)) if any(cells[at] for cells, _ in rows)]
    widths = {at: max(len(head[at]), *(len(cells[at]) for cells, _ in rows)) for at in used}
    fits = sum(widths.values()) + 2 * (len(used) - 1) <= width
    if fits:
        yield "  ".join(head[at].ljust(widths[at]) for at in used).rstrip()
    for cells, notes in rows:
        if fits:
            yield "  ".join(cells[at].ljust(widths[at]) for at in used).rstrip()
        else:
            yield from _wrapped(cells[0], width)
            told = ", ".join(f"{head[at].lower()} {cells[at]}" for at in used[1:] if cells[at])
            yield from _wrapped(told, width, 4)
        for note in notes:
            yield from _wrapped(note, width, 4)


def rollout(told: Data, width: int) -> str:
    """Return a rollout with its journal as a timeline."""
    width = max(width, NARROWEST)
    lines = [f"{told['kind']} {told['id']} of fleet {told['fleet']}: {told['outcome']}"]
    lines += [f"started {told['started']}" + (f", took {span(told['seconds'])}" if told["seconds"] is not None else "")]
    lines += [f"{way}: {_generation(told[way])}" for way in ("from", "to")]
    lines += [f"settings changed: {line(change)}" for change in told["settings_changed"]]
    lines += [f"{key}: {told[key]}" for key in ("verdict", "reason") if told[key]]
    lines += [f"ordered {order['at']}: {_order(order)}" for order in told["orders"]]
    text = [row for one in lines for row in _wrapped(one, width)]
    return "\n".join([*text, "", *timeline(told["timeline"], width)])


def _order(order: Data) -> str:
    by = f" by {order['who']}" if order["who"] else ""
    late = "" if order["taken"] else " (not taken up yet)"
    return f"{order['what']}{by}{late}" + (f": {order['reason']}" if order["reason"] else "")


def _generation(told: Data | None) -> str:
    if told is None:
        return "no machines"
    return f"generation {told['generation']}, {told['image']}, provider {told['provider']}"


def timeline(entries: Sequence[Data], width: int) -> Iterator[str]:
    """Yield what happened, a line each: seconds since the beginning, what, to which machine, and why."""
    if not entries:
        yield "nothing was done"
        return
    whens = [f"{entry['at']:.1f} s" for entry in entries]
    whats = [line(entry["what"]) for entry in entries]
    whos = [line(entry.get("minion_id") or "") for entry in entries]
    fields = [max(map(len, column)) for column in (whens, whats, whos)]
    indent = sum(fields) + 6
    beside = width - indent >= _REASON
    for entry, when, what, who in zip(entries, whens, whats, whos, strict=True):
        row = f"{when:>{fields[0]}}  {what:<{fields[1]}}  {who:<{fields[2]}}".rstrip()
        reason = [part for said in _said(entry["reason"]) for part in _wrapped(said, width, indent if beside else 4)]
        if beside and len(reason) == 1:
            yield f"{row:<{indent}}{reason[0].strip()}".rstrip()
        else:
            yield from [row] if len(row) <= width else _wrapped(row, width)
            yield from reason


def _said(reason: str) -> list[str]:
    """Return the lines of a reason, which may be a console's: of that only the end."""
    lines = [said for said in reason.splitlines() if said.strip()]
    left_out = len(lines) - _CONSOLE
    return lines if left_out <= 0 else [f"({left_out} lines before this: --out=json)", *lines[-_CONSOLE:]]


def plan(told: Data, width: int) -> str:
    """Return what a command would do: each action in order, and how the images differ."""
    width = max(width, NARROWEST)
    lines = [f"fleet {told['fleet']}: {told['verdict']}: {told['reason']}"]
    lines += [f"image {told['image']} would run"] if told["image"] and told["actions"] else []
    lines += [f"warning: {warning}" for warning in told.get("warnings", ())]
    text = [row for one in lines for row in _wrapped(one, width)]
    if told["actions"]:
        rows = [_action(number, action) for number, action in enumerate(told["actions"], 1)]
        text += ["", *table(("", "WHAT", "MACHINE", "WHY"), rows, width)]
    if told.get("difference"):
        text += ["", *(row for one in _difference(told["difference"]) for row in _wrapped(one, width))]
    if told.get("plan"):
        doing = f"exactly this: salt-run fleet.roll {told['fleet']} plan={told['plan']}"
        text += ["", *_wrapped(doing, width)]
    return "\n".join(text)


def _action(number: int, action: Data) -> tuple[list[str], list[str]]:
    who = action.get("minion_id") or f"a new one of generation {action['generation']}"
    return [str(number), line(action["kind"]), line(who), line(action["reason"])], []


def _difference(told: Data) -> Iterator[str]:
    """Say how two images differ; of long lists the beginning."""
    if told["same"]:
        yield f"the image stays: {told['to']}"
        return
    yield f"from {told['from'] or 'no image'} to {told['to']}:"
    for part in ("packages", "states", "files", "recipes", "settings"):
        for what, names in told.get(part, {}).items():
            entries = [f"{name} {value}" for name, value in names.items()] if isinstance(names, Mapping) else names
            more = [f"and {len(entries) - _SHOWN} more (--out=json)"] if len(entries) > _SHOWN else []
            yield f"  {part} {what} ({len(entries)}): {', '.join([*entries[:_SHOWN], *more])}"
    yield from (f"  also changed: {what}" for what in told.get("also", ()))
    if told.get("size"):
        yield f"  size: {told['size'] / 1e6:+.1f} MB"
    yield from (f"  not known: {what}" for what in told.get("unknown", ()))


def span(seconds: float | None) -> str:
    """Return how long something is in two units at most: ``3d 4h``, ``12m 5s``, ``4s``."""
    left, parts = int(seconds or 0), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        parts.append((left // size, unit))
        left %= size
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def line(said: str) -> str:
    """Return what anybody said as one line that a terminal only prints."""
    return " ".join(plain(said).split())


def _wrapped(said: str, width: int, indent: int = 0) -> list[str]:
    """Return a sentence in lines; what goes on stands two columns further right."""
    begins = " " * (indent + len(said) - len(said.lstrip(" ")))
    return wrap(line(said), width, initial_indent=begins, subsequent_indent=f"{begins}  ", break_on_hyphens=False)
