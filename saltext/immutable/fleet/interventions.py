"""The commands on single machines: taint, untaint, protect, unprotect, break-glass. Each writes to the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import minions
from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.taints import Kind
from saltext.immutable.fleet.drive.probing import PROBE_WITHIN
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.guard.break_glass_token import MAX_TTL, Grant, sign
from saltext.immutable.minions import FORGED
from saltext.immutable.spec import reading
from saltext.immutable.text import plain

Notify = Callable[..., None]
"""Prints a sentence as progress and fires the event ``immutable/<tag>``: ``notify(sentence, tag, **data)``."""
ADOPTED = "adopted"
"""The fleet in the tags of events about machines that no fleet launched."""
DRIFT_KINDS = ("drift", "no drift")
"""The entries that ``fleet.drift`` writes to the audit log."""


class Interventions:
    """The commands on single machines."""

    def __init__(self, operations: Operations, notify: Notify) -> None:
        self._operations, self._notify = operations, notify
        self._minions, self._taints, self._audit = operations.minions, operations.taints, operations.audit

    # Taints

    def taint(self, minion_id: str, reason: str | None, kind: str = "hand", test: bool = False) -> dict[str, Any]:
        """Taint a machine, so that the next roll replaces it.

        ``kind`` drift: the reason is what ``fleet.drift`` wrote to the audit log; ``reason`` is ignored, because a
        reactor takes it from an event, and any minion can fire events.
        """
        fleet = self._fleet_of(minion_id, test)
        entry = self._operations.audit_entry("tainted", minion_id, fleet, self._taint_reason(minion_id, reason, kind))
        known: Kind = "drift" if kind == "drift" else "hand"
        if any(taint.kind == known for taint in self._taints.of_machine(minion_id)):
            return self._result(entry, "it is tainted already", changed=False)
        if test:
            return {**self._result(entry, f"it would be tainted: {entry.reason}", changed=False), "result": None}
        return self.add_taint(known, entry)

    def add_taint(self, kind: Kind, entry: AuditEntry) -> dict[str, Any]:
        """Taint a machine, and fire an event unless it has a taint of this kind already."""
        if not self._taints.add(kind, entry):
            known = self._taints.of_machine(str(entry.minion_id))
            return self._result(entry, "it is tainted already" if known else "it is gone", changed=False)
        self._fire(entry, f"{entry.fleet or ADOPTED}/tainted", kind=kind)
        return self._result(entry, f"it is tainted: {entry.reason}", changed=True)

    def untaint(self, minion_id: str, reason: str | None = None, test: bool = False) -> dict[str, Any]:
        """Remove the taints of a machine; raise ``CommandExecutionError`` if it was opened by break-glass."""
        fleet = self._fleet_of(minion_id, test)
        entry = self._operations.audit_entry("untainted", minion_id, fleet, plain(str(reason or "")))
        if not self._taints.of_machine(minion_id):
            return self._result(entry, "it is not tainted", changed=False)
        if test:
            return {**self._result(entry, "it would be untainted", changed=False), "result": None}
        self._taints.remove(entry)
        self._fire(entry, f"{entry.fleet or ADOPTED}/untainted")
        return self._result(entry, "it is not tainted any more", changed=True)

    # Forged answers

    def report_forged(self, fleets: Mapping[str, str | None]) -> None:
        """Write to the audit log under which ids of machines answers were forged, and fire an event for each.

        ``fleets``: minion id to fleet, of those that were asked.
        """
        for minion_id in self._minions.forged():
            if minion_id in fleets:
                entry = self._operations.audit_entry("forged", minion_id, fleets[minion_id], FORGED)
                self._audit.write(entry)
                self._fire(entry, f"{entry.fleet or ADOPTED}/forged")

    # Protection

    def protect(self, minion_id: str, reason: str | None, test: bool = False) -> dict[str, Any]:
        """Protect a machine: no rollout removes it while it is healthy."""
        ledger = self._operations.ledger(self._operations.fleet_of(minion_id))
        entry = self._operations.audit_entry("protected", minion_id, ledger.fleet, _required(reason))
        if minion_id in ledger.protected():
            return self._result(entry, f"it is protected already: {ledger.protected()[minion_id]}", changed=False)
        record = ledger.records().get(minion_id)
        if record is not None and record.doomed:
            raise CommandExecutionError(
                f"{minion_id} is being destroyed, so it cannot be protected any more: {record.reason}"
            )
        if test:
            return {**self._result(entry, f"it would be protected: {entry.reason}", changed=False), "result": None}
        ledger.protect(minion_id, entry.reason, entry.who, entry.at)
        self._audit.write(entry)
        self._fire(entry, f"{entry.fleet}/protected")
        return self._result(entry, f"it is protected: {entry.reason}", changed=True)

    def unprotect(self, minion_id: str, reason: str | None = None, test: bool = False) -> dict[str, Any]:
        """End the protection of a machine."""
        ledger = self._operations.ledger(self._operations.fleet_of(minion_id))
        entry = self._operations.audit_entry("unprotected", minion_id, ledger.fleet, plain(str(reason or "")))
        if minion_id not in ledger.protected():
            return self._result(entry, "it is not protected", changed=False)
        if test:
            return {**self._result(entry, "it would not be protected any more", changed=False), "result": None}
        ledger.unprotect(minion_id)
        self._audit.write(entry)
        self._fire(entry, f"{entry.fleet}/unprotected")
        return self._result(entry, "it is not protected any more", changed=True)

    # Break-glass

    def break_glass(
        self, opts: Mapping[str, Any], minion_id: str, reason: str | None, ttl: object = "15m", test: bool = False
    ) -> dict[str, Any]:
        """Open a sealed machine for ``ttl`` (``15m``). It is tainted before it is opened, and stays tainted.

        ``opts``: the master's, for its private key. Raises ``CommandExecutionError`` if the machine does not answer as
        it should; nothing is tainted or opened then, unless the error says so.
        """
        why, seconds, fleet = _required(reason), _ttl(ttl), self._fleet_of(minion_id, test)
        entry = self._operations.audit_entry("break-glass", minion_id, fleet, f"break-glass for {seconds:g} s: {why}")
        if test:
            comment = f"it would be tainted permanently: {entry.reason}"
            return {**self._result(entry, comment, changed=False), "result": None}
        pem, passphrase = minions.private_key(opts)
        challenge = self._challenge(minion_id, seconds)
        self._taints.add("break_glass", entry)
        scope = {"opens": challenge["opens"], "cannot": challenge["cannot"]}
        self._fire(entry, f"break_glass/{minion_id}", kind="break_glass", ttl=seconds, **scope)
        bound = (challenge["nonce"], challenge["boot_id"], challenge["until"])
        token = sign(Grant(minion_id, *bound, why, entry.who or ""), pem, passphrase)
        try:
            self._call(minion_id, "immutable.break_glass", token=token)
        except CommandExecutionError as err:
            raise CommandExecutionError(f"{err} (the machine is tainted anyway, and may be open)") from err
        result = self._result(entry, f"it is open for {seconds:g} s, and tainted permanently", changed=True)
        return {**result, "seconds": seconds, **scope}

    def end_break_glass(self, minion_id: str) -> dict[str, Any]:
        """Close a machine before its break-glass token expires."""
        fleet = self._fleet_of(minion_id, even_lost=True)  # a machine can be closed at any time
        entry = self._operations.audit_entry("end of break-glass", minion_id, fleet, "")
        self._call(minion_id, "immutable.end_break_glass")
        self._audit.write(entry)
        self._fire(entry, f"break_glass/{minion_id}")
        return self._result(entry, "it is closed; it stays tainted", changed=True)

    def _challenge(self, minion_id: str, seconds: float) -> dict[str, Any]:
        """Return the machine's challenge; raise ``CommandExecutionError`` if it is malformed, or another machine's."""
        answer = self._call(minion_id, "immutable.break_glass_challenge", ttl=seconds)
        challenge = answer if isinstance(answer, Mapping) else {}
        if challenge.get("machine") != minion_id:
            raise CommandExecutionError(f"{minion_id} asks for a token of another machine: {plain(repr(answer))}")
        nonce, boot_id, until = challenge.get("nonce"), challenge.get("boot_id"), challenge.get("until")
        if not isinstance(nonce, str) or not isinstance(boot_id, str) or not isinstance(until, int | float):
            raise CommandExecutionError(f"{minion_id} sent a malformed challenge: {plain(repr(answer))}")
        return {
            "nonce": nonce,
            "boot_id": boot_id,
            "until": float(until),
            "opens": _printable(challenge.get("opens")),
            "cannot": _printable(challenge.get("cannot")),
        }

    # Helpers

    def _call(self, minion_id: str, fun: str, **kwargs: Any) -> Any:
        try:
            return self._minions.ask(minion_id, fun, PROBE_WITHIN, **kwargs)
        except minions.NoAnswer:
            raise
        except CommandExecutionError as err:
            raise CommandExecutionError(plain(str(err))) from err

    def _fleet_of(self, minion_id: str, test: bool = False, even_lost: bool = False) -> str | None:
        """Return the fleet of a machine; None for an adopted one, which must have a key on this master.

        A machine that the store does not know is written back first, but for a dry run (``test``). Raises
        ``CommandExecutionError`` if the store was lost, unless ``even_lost``: then nothing is written back.
        """
        try:
            reading.minion_id(minion_id)
        except ValueError as err:
            raise SaltInvocationError(f"minion_id: {err}; name one machine") from err
        fleet = self._taints.fleet_of(minion_id)
        if fleet is None and (found := self._operations.fleet_that_lists(minion_id)):
            if not even_lost:
                self._operations.write_back(found, test)
            fleet = found
        if fleet is None and not self._minions.accepted(minion_id):
            names = ", ".join(self._operations.names()) or "none"
            raise SaltInvocationError(
                f"{minion_id} is not a machine of a fleet ({names}), and has no key on this master; "
                "`salt-run fleet.status <fleet>` names the machines"
            )
        return fleet

    def _taint_reason(self, minion_id: str, reason: str | None, kind: str) -> str:
        if kind == "hand":
            return _required(reason)
        if kind != "drift":
            raise SaltInvocationError(f"kind: must be hand or drift, not {kind!r}")
        last = self._audit.last(minion_id, DRIFT_KINDS)
        if last is None or last.what != "drift":
            raise CommandExecutionError(
                f"no drift of {minion_id} is recorded; `salt-run fleet.drift <fleet>` checks its machines"
            )
        return last.reason

    def _fire(self, entry: AuditEntry, tag: str, **data: Any) -> None:
        who = f" by {entry.who}" if entry.who else ""
        why = f": {entry.reason}" if entry.reason else ""
        known = {"fleet": entry.fleet, "minion_id": entry.minion_id, "reason": entry.reason, "at": entry.at}
        self._notify(f"{entry.what} {entry.minion_id}{who}{why}", tag, **known, who=entry.who, jid=entry.jid, **data)

    def _result(self, entry: AuditEntry, comment: str, changed: bool) -> dict[str, Any]:
        return {
            "minion_id": entry.minion_id,
            "fleet": entry.fleet,
            "result": True,
            "changed": changed,
            "comment": comment,
            "tainted": [taint.reason for taint in self._taints.of_machine(str(entry.minion_id))],
        }


def _required(reason: object) -> str:
    """Return the operator's reason as printable text; raise ``SaltInvocationError`` if there is none."""
    text = "" if reason is None else plain(str(reason)).strip()
    if not text:
        raise SaltInvocationError("reason: say why, for the audit log: reason='...'")
    return text


def _ttl(ttl: object) -> float:
    try:
        seconds = reading.duration(ttl)
    except ValueError as err:
        raise SaltInvocationError(f"ttl: {err}") from err
    if seconds > MAX_TTL:
        raise SaltInvocationError(
            f"ttl: {seconds:g} s is longer than the maximum of {MAX_TTL:g} s; a lasting change needs a new image "
            "(`salt-run fleet.rebuild <fleet>`)"
        )
    return seconds


def _printable(sentences: object) -> list[str]:
    """Return a machine's list of sentences as printable text."""
    return [plain(str(one)) for one in sentences[:20]] if isinstance(sentences, list | tuple) else []
