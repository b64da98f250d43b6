"""What an operator does to single machines: taint, untaint, open for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import minions
from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.taints import Kind
from saltext.immutable.fleet.decide.checks import PROBE_WITHIN
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.guard import token as glass
from saltext.immutable.spec import reading
from saltext.immutable.text import plain

Tell = Callable[..., None]
"""Says a sentence, and fires it with data as ``immutable/<tag>``."""
ADOPTED = "adopted"
"""What events call the fleet of a machine that no fleet launched."""
DRIFTS = ("drift", "no drift")
"""What a look at a machine comes to in the journal of deeds."""


class Care:
    """Commands on single machines, each written down with who gave it."""

    def __init__(self, operations: Operations, tell: Tell) -> None:
        self._operations, self._tell = operations, tell
        self._minions, self._taints, self._audit = operations.minions, operations.taints, operations.audit

    # Taints

    def taint(self, minion_id: str, reason: str | None, kind: str = "hand", test: bool = False) -> dict[str, Any]:
        """Let a machine be replaced by the next roll.

        ``kind`` drift: what drifted is what ``fleet.drift`` wrote down, so that an event, which any minion can fire,
        taints nobody by itself.
        """
        fleet = self._fleet_of(minion_id)
        deed = self._operations.audit_entry("tainted", minion_id, fleet, self._why(minion_id, reason, kind))
        known: Kind = "drift" if kind == "drift" else "hand"
        if any(taint.kind == known for taint in self._taints.of_machine(minion_id)):
            return self._told(deed, "it is tainted already", changed=False)
        if test:
            return {**self._told(deed, f"it would be tainted: {deed.reason}", changed=False), "result": None}
        return self.mark(known, deed)

    def mark(self, kind: Kind, deed: AuditEntry) -> dict[str, Any]:
        """Taint a machine, and say so where that is new."""
        if not self._taints.add(kind, deed):
            known = self._taints.of_machine(str(deed.minion_id))
            return self._told(deed, "it is tainted already" if known else "it is gone", changed=False)
        self._say(deed, f"{deed.fleet or ADOPTED}/tainted", kind=kind)
        return self._told(deed, f"it is tainted: {deed.reason}", changed=True)

    def untaint(self, minion_id: str, reason: str | None = None, test: bool = False) -> dict[str, Any]:
        """Take back that a machine has to be replaced."""
        deed = self._operations.audit_entry("untainted", minion_id, self._fleet_of(minion_id), plain(str(reason or "")))
        if not self._taints.of_machine(minion_id):
            return self._told(deed, "it is not tainted", changed=False)
        if test:
            return {**self._told(deed, "it would be untainted", changed=False), "result": None}
        self._taints.remove(deed)
        self._say(deed, f"{deed.fleet or ADOPTED}/untainted")
        return self._told(deed, "it is not tainted any more", changed=True)

    # Protection

    def protect(self, minion_id: str, reason: str | None, test: bool = False) -> dict[str, Any]:
        """Let no rollout take a machine away while it is well."""
        ledger = self._operations.ledger(self._operations.fleet_of(minion_id))
        deed = self._operations.audit_entry("protected", minion_id, ledger.fleet, _said(reason))
        if minion_id in ledger.protected():
            return self._told(deed, f"it is protected already: {ledger.protected()[minion_id]}", changed=False)
        record = ledger.records().get(minion_id)
        if record is not None and record.doomed:
            raise CommandExecutionError(f"{minion_id} goes already, and cannot be held back: {record.reason}")
        if test:
            return {**self._told(deed, f"it would be protected: {deed.reason}", changed=False), "result": None}
        ledger.protect(minion_id, deed.reason, deed.who, deed.at)
        self._audit.write(deed)
        self._say(deed, f"{deed.fleet}/protected")
        return self._told(deed, f"it is protected: {deed.reason}", changed=True)

    def unprotect(self, minion_id: str, reason: str | None = None, test: bool = False) -> dict[str, Any]:
        """Let rollouts take a machine away again."""
        ledger = self._operations.ledger(self._operations.fleet_of(minion_id))
        deed = self._operations.audit_entry("unprotected", minion_id, ledger.fleet, plain(str(reason or "")))
        if minion_id not in ledger.protected():
            return self._told(deed, "it is not protected", changed=False)
        if test:
            return {**self._told(deed, "it would not be protected any more", changed=False), "result": None}
        ledger.unprotect(minion_id)
        self._audit.write(deed)
        self._say(deed, f"{deed.fleet}/unprotected")
        return self._told(deed, "it is not protected any more", changed=True)

    # Break-glass

    def break_glass(
        self, opts: Mapping[str, Any], minion_id: str, reason: str | None, ttl: object = "15m", test: bool = False
    ) -> dict[str, Any]:
        """Open a sealed machine for ``ttl``. It is tainted before it can be open, and stays so for ever."""
        why, seconds, fleet = _said(reason), _ttl(ttl), self._fleet_of(minion_id)
        deed = self._operations.audit_entry("break-glass", minion_id, fleet, f"break-glass for {seconds:g} s: {why}")
        if test:
            return {**self._told(deed, f"it would be tainted for ever: {deed.reason}", changed=False), "result": None}
        pem, passphrase = minions.private_key(opts)
        asked = self._challenge(minion_id, seconds)
        self._taints.add("break_glass", deed)
        data = {"kind": "break_glass", "ttl": seconds, "opens": asked["opens"], "cannot": asked["cannot"]}
        self._say(deed, f"break_glass/{minion_id}", **data)
        grant = glass.Grant(minion_id, asked["nonce"], asked["boot_id"], asked["until"], why, deed.who or "")
        token = glass.sign(grant, pem, passphrase)
        try:
            self._ask(minion_id, "immutable.break_glass", token=token)
        except CommandExecutionError as err:
            raise CommandExecutionError(f"{err} (it is tainted all the same, and may be open)") from err
        told = self._told(deed, f"it is open for {seconds:g} s, and tainted for ever", changed=True)
        return {**told, "seconds": seconds, "opens": asked["opens"], "cannot": asked["cannot"]}

    def end_break_glass(self, minion_id: str) -> dict[str, Any]:
        """Close a machine again before its time is over."""
        deed = self._operations.audit_entry("end of break-glass", minion_id, self._fleet_of(minion_id), "")
        self._ask(minion_id, "immutable.end_break_glass")
        self._audit.write(deed)
        self._say(deed, f"break_glass/{minion_id}")
        return self._told(deed, "it is closed; it stays tainted", changed=True)

    def _challenge(self, minion_id: str, seconds: float) -> dict[str, Any]:
        """Return what the machine wants signed: it may be any data, and must not be another machine's."""
        said = self._ask(minion_id, "immutable.break_glass_challenge", ttl=seconds)
        asked = said if isinstance(said, Mapping) else {}
        if asked.get("machine") != minion_id:
            raise CommandExecutionError(f"{minion_id} asks for a token of another machine: {plain(repr(said))}")
        nonce, boot_id, until = asked.get("nonce"), asked.get("boot_id"), asked.get("until")
        if not isinstance(nonce, str) or not isinstance(boot_id, str) or not isinstance(until, int | float):
            raise CommandExecutionError(f"{minion_id} makes no proper challenge: {plain(repr(said))}")
        return {
            "nonce": nonce,
            "boot_id": boot_id,
            "until": float(until),
            "opens": _lines(asked.get("opens")),
            "cannot": _lines(asked.get("cannot")),
        }

    # How

    def _ask(self, minion_id: str, fun: str, **kwargs: Any) -> Any:
        try:
            return self._minions.ask(minion_id, fun, PROBE_WITHIN, **kwargs)
        except minions.NoAnswer:
            raise
        except CommandExecutionError as err:
            raise CommandExecutionError(plain(str(err))) from err

    def _fleet_of(self, minion_id: str) -> str | None:
        """Return the fleet of a machine; one that is of none must have a key, and is an adopted one."""
        try:
            reading.minion_id(minion_id)
        except ValueError as err:
            raise SaltInvocationError(f"minion_id: {err}; name one machine") from err
        fleet = self._taints.fleet_of(minion_id)
        if fleet is None and not self._minions.accepted(minion_id):
            names = ", ".join(self._operations.names()) or "none"
            raise SaltInvocationError(
                f"{minion_id} is no machine of a fleet ({names}), nor has it a key on this master; "
                "`salt-run fleet.status <fleet>` names the machines"
            )
        return fleet

    def _why(self, minion_id: str, reason: str | None, kind: str) -> str:
        if kind == "hand":
            return _said(reason)
        if kind != "drift":
            raise SaltInvocationError(f"kind: must be hand or drift, not {kind!r}")
        last = self._audit.last(minion_id, DRIFTS)
        if last is None or last.what != "drift":
            raise CommandExecutionError(f"no drift of {minion_id} is written down; `salt-run fleet.drift` looks for it")
        return last.reason

    def _say(self, deed: AuditEntry, tag: str, **data: Any) -> None:
        who = f" by {deed.who}" if deed.who else ""
        why = f": {deed.reason}" if deed.reason else ""
        known = {"fleet": deed.fleet, "minion_id": deed.minion_id, "reason": deed.reason, "at": deed.at}
        self._tell(f"{deed.what} {deed.minion_id}{who}{why}", tag, **known, who=deed.who, jid=deed.jid, **data)

    def _told(self, deed: AuditEntry, comment: str, changed: bool) -> dict[str, Any]:
        return {
            "minion_id": deed.minion_id,
            "fleet": deed.fleet,
            "result": True,
            "changed": changed,
            "comment": comment,
            "tainted": [taint.reason for taint in self._taints.of_machine(str(deed.minion_id))],
        }


def _said(reason: object) -> str:
    """Return the operator's reason: there has to be one."""
    said = "" if reason is None else plain(str(reason)).strip()
    if not said:
        raise SaltInvocationError("reason: say why, for whoever reads the journal: reason='...'")
    return said


def _ttl(ttl: object) -> float:
    try:
        seconds = reading.duration(ttl)
    except ValueError as err:
        raise SaltInvocationError(f"ttl: {err}") from err
    if seconds > glass.MAX_TTL:
        raise SaltInvocationError(f"ttl: {seconds:g} s is longer than the {glass.MAX_TTL:g} s that there are; rebuild")
    return seconds


def _lines(said: object) -> list[str]:
    """Return a machine's list of sentences as one that can be printed."""
    return [plain(str(one)) for one in said[:20]] if isinstance(said, list | tuple) else []
