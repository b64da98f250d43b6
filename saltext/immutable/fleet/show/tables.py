"""What `report`, `proposal` and `timeline` return, as text for a terminal. Any content is printed safely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from saltext.immutable.text import plain

Data = Mapping[str, Any]

MIN_WIDTH = 30
"""Columns that are used even if the terminal has fewer."""
BAR_WIDTH = 20
_REASON_WIDTH = 36
"""Columns that a reason needs beside its machine; with fewer it is printed below."""
_CONSOLE_LINES = 25
"""How many lines of a console are shown."""
_MAX_NAMED = 12
"""How many entries of one kind of difference are named; ``--out=json`` has all."""


def status(data: Data, width: int) -> str:
    """Return the status of one fleet, or of all, with a table of its machines."""
    width = max(width, MIN_WIDTH)
    if "fleets" not in data:
        return "\n".join(_fleet(data, width))
    first = dict.fromkeys(one for part in (data, *data["fleets"].values()) for one in _warnings(part))
    blocks = [[row for one in first for row in _wrapped(one, width)]] if first else []
    blocks += [list(_fleet({**fleet, "warnings": ()}, width)) for fleet in data["fleets"].values()]
    adopted = [f"{minion_id}: {'; '.join(reasons)}" for minion_id, reasons in data["adopted"].items()]
    if adopted:
        title = "tainted machines that no fleet launched"
        blocks.append([title, *(line for one in adopted for line in _wrapped(one, width, 2))])
    return "\n\n".join("\n".join(lines) for lines in blocks) or "there is no fleet"


def _fleet(data: Data, width: int) -> Iterator[str]:
    for line in _head(data):
        yield from _wrapped(line, width)
    if data["machines"]:
        yield ""
        yield from table(_COLUMNS, [_row(machine) for machine in data["machines"]], width)


def _head(data: Data) -> Iterator[str]:
    """Yield the lines above the table: warnings, fleet, image, rollout, orders, and the process that works on it."""
    yield from _warnings(data)
    wanted = "" if data.get("wanted") is None else f" of {data['wanted']}"
    runs = f"generation {data['generation']}, {data['image']}" if data["generation"] else "nothing was rolled out yet"
    yield f"fleet {data['fleet']}: {data['size']}{wanted} machines, {runs}"
    yield from (f"revoked: {why}" for why in data.get("revoked", ()))
    if data.get("size_set"):
        yield f"size: {data['size_set']}"
    if data["rollout"]:
        yield from _rollout(data["rollout"])
    yield from (f"order: {order}" for order in data.get("orders", ()))
    if data.get("unlisted"):
        yield str(data["unlisted"])
    if data["held_by"]:
        yield f"held by: {data['held_by']}"


def _warnings(data: Data) -> Iterator[str]:
    """Yield what stands first, whatever else is said."""
    yield from (f"warning: {warning}" for warning in data.get("warnings", ()))


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
    """Return a bar of progress: 4 of 6 is ``[#############.......]``."""
    full = BAR_WIDTH if whole <= 0 else min(BAR_WIDTH, BAR_WIDTH * done // whole)
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}]"


_COLUMNS = ("MACHINE", "GEN", "IMAGE", "PHASE", "HEALTH", "TRAFFIC", "AGE")


def _row(machine: Data) -> tuple[list[str], list[str]]:
    """Return the cells of a machine, and notes to print below them."""
    cells = [machine.get(key) for key in ("minion_id", "generation", "image", "phase", "health", "traffic")]
    notes = [f"tainted: {reason}" for reason in machine.get("tainted", ())]
    notes += [f"protected: {machine['protected']}"] if machine.get("protected") else []
    notes += [f"kept for another {span(machine['kept_for'])}"] if machine.get("kept_for") is not None else []
    notes += [str(machine["note"])] if machine.get("note") else []
    return ["" if cell is None else line(str(cell)) for cell in cells] + [span(machine["age"])], notes


def table(head: Sequence[str], rows: Sequence[tuple[list[str], list[str]]], width: int) -> Iterator[str]:
    """Yield the lines of a table, each row with its notes below; if it is too wide, a paragraph for each row.

    ``rows``: cells and notes. Columns that are empty in every row are left out.
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
            paragraph = ", ".join(f"{head[at].lower()} {cells[at]}" for at in used[1:] if cells[at])
            yield from _wrapped(paragraph, width, 4)
        for note in notes:
            yield from _wrapped(note, width, 4)


def rollout(data: Data, width: int) -> str:
    """Return a rollout with its journal as a timeline: the text of ``fleet.show``."""
    width = max(width, MIN_WIDTH)
    lines = [*_warnings(data), f"{data['kind']} {data['id']} of fleet {data['fleet']}: {data['outcome']}"]
    lines += [f"started {data['started']}" + (f", took {span(data['seconds'])}" if data["seconds"] is not None else "")]
    lines += [f"{end}: {_generation(data[end])}" for end in ("from", "to")]
    lines += [f"settings changed: {line(change)}" for change in data["settings_changed"]]
    lines += [f"{key}: {data[key]}" for key in ("verdict", "reason") if data[key]]
    lines += [f"ordered {order['at']}: {_order(order)}" for order in data["orders"]]
    text = [row for one in lines for row in _wrapped(one, width)]
    return "\n".join([*text, "", *timeline(data["timeline"], width)])


def _order(order: Data) -> str:
    by = f" by {order['who']}" if order["who"] else ""
    pending = "" if order["taken"] else " (not applied yet)"
    return f"{order['what']}{by}{pending}" + (f": {order['reason']}" if order["reason"] else "")


def _generation(data: Data | None) -> str:
    if data is None:
        return "no machines"
    return f"generation {data['generation']}, {data['image']}, provider {data['provider']}"


def timeline(entries: Sequence[Data], width: int) -> Iterator[str]:
    """Yield a line for each entry of a journal: seconds since the beginning, what, which machine, why."""
    if not entries:
        yield "nothing was done"
        return
    whens = [f"{entry['at']:.1f} s" for entry in entries]
    whats = [line(entry["what"]) for entry in entries]
    whos = [line(entry.get("minion_id") or "") for entry in entries]
    fields = [max(map(len, column)) for column in (whens, whats, whos)]
    indent = sum(fields) + 6
    beside = width - indent >= _REASON_WIDTH
    for entry, when, what, who in zip(entries, whens, whats, whos, strict=True):
        row = f"{when:>{fields[0]}}  {what:<{fields[1]}}  {who:<{fields[2]}}".rstrip()
        reason = [part for one in _lines(entry["reason"]) for part in _wrapped(one, width, indent if beside else 4)]
        if beside and len(reason) == 1:
            yield f"{row:<{indent}}{reason[0].strip()}".rstrip()
        else:
            yield from [row] if len(row) <= width else _wrapped(row, width)
            yield from reason


def _lines(reason: str) -> list[str]:
    """Return the lines of a reason; of a long one (a console) only the last."""
    lines = [one for one in reason.splitlines() if one.strip()]
    left_out = len(lines) - _CONSOLE_LINES
    return lines if left_out <= 0 else [f"({left_out} lines before this: --out=json)", *lines[-_CONSOLE_LINES:]]


def plan(data: Data, width: int) -> str:
    """Return the text of ``fleet.plan``: each action in order, and how the images differ."""
    width = max(width, MIN_WIDTH)
    lines = [*_warnings(data), f"fleet {data['fleet']}: {data['verdict']}: {data['reason']}"]
    lines += [f"image {data['image']} would run"] if data["image"] and data["actions"] else []
    text = [row for one in lines for row in _wrapped(one, width)]
    if data["actions"]:
        rows = [_action(number, action) for number, action in enumerate(data["actions"], 1)]
        text += ["", *table(("", "WHAT", "MACHINE", "WHY"), rows, width)]
    if data.get("difference"):
        text += ["", *(row for one in _difference(data["difference"]) for row in _wrapped(one, width))]
    if data.get("plan"):
        command = f"run exactly this plan: salt-run fleet.roll {data['fleet']} plan={data['plan']}"
        text += ["", *_wrapped(command, width)]
    return "\n".join(text)


def _action(number: int, action: Data) -> tuple[list[str], list[str]]:
    who = action.get("minion_id") or f"a new one of generation {action['generation']}"
    return [str(number), line(action["kind"]), line(who), line(action["reason"])], []


def _difference(data: Data) -> Iterator[str]:
    """Yield the lines about how two images differ; long lists are cut off."""
    if data["same"]:
        yield f"the image stays: {data['to']}"
        return
    yield f"from {data['from'] or 'no image'} to {data['to']}:"
    for part in ("packages", "states", "files", "recipes", "settings"):
        for what, names in data.get(part, {}).items():
            entries = [f"{name} {value}" for name, value in names.items()] if isinstance(names, Mapping) else names
            more = [f"and {len(entries) - _MAX_NAMED} more (--out=json)"] if len(entries) > _MAX_NAMED else []
            yield f"  {part} {what} ({len(entries)}): {', '.join([*entries[:_MAX_NAMED], *more])}"
    yield from (f"  also changed: {what}" for what in data.get("also", ()))
    if data.get("size"):
        yield f"  size: {data['size'] / 1e6:+.1f} MB"
    yield from (f"  unknown: {what}" for what in data.get("unknown", ()))


def span(seconds: float | None) -> str:
    """Return a duration in at most two units: ``3d 4h``, ``12m 5s``, ``4s``."""
    left, parts = int(seconds or 0), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        parts.append((left // size, unit))
        left %= size
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def line(text: str) -> str:
    """Return any text as one printable line."""
    return " ".join(plain(text).split())


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Return a sentence wrapped into lines; continued lines are indented by two more columns."""
    begins = " " * (indent + len(text) - len(text.lstrip(" ")))
    return wrap(line(text), width, initial_indent=begins, subsequent_indent=f"{begins}  ", break_on_hyphens=False)
