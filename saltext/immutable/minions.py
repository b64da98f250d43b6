"""Salt seen from the master: the pillar's definitions, enrolment, start events, jobs."""

from __future__ import annotations

import copy
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import salt.client
import salt.pillar
import salt.utils.event
import salt.wheel
from salt.exceptions import CommandExecutionError, SaltClientError, SaltInvocationError, SaltReqTimeoutError

from saltext.immutable import spec
from saltext.immutable.spec.model import Definitions, FunctionCheck, HttpCheck

ANSWER_WITHIN = 5
"""Seconds for which a minion may be silent before it is asked whether the job still runs."""
_KEYS = ("minions", "minions_pre", "minions_denied", "minions_rejected")


class NoAnswer(CommandExecutionError):  # type: ignore[misc]
    """Nothing could be learned about a machine: neither that it is well nor that it is ill."""


@dataclass(frozen=True)
class Event:
    """Something that Salt's event bus said of one minion id."""

    kind: Literal["started", "intruder"]
    """``intruder``: somebody knocked under that id with another key."""
    minion_id: str


def pillar(opts: Mapping[str, Any], minion_id: str, grains: Mapping[str, Any], **envs: str | None) -> dict[str, Any]:
    """Compile the pillar of ``minion_id`` here and now, past every cache; ``envs``: saltenv, pillarenv."""
    # The operator is told what is wrong with it; a minion would only be sent to the master's log.
    mine = {**opts, "pillar_cache": False, "file_client": "local", "pillar_safe_render_error": False}
    compiler = salt.pillar.Pillar(mine, dict(grains), minion_id, envs.get("saltenv"), pillarenv=envs.get("pillarenv"))
    compiled: dict[str, Any] = compiler.compile_pillar()
    if errors := compiled.get("_errors"):
        raise SaltInvocationError(f"the pillar of {minion_id} does not compile:\n" + "\n".join(map(str, errors)))
    return compiled


def definitions(opts: Mapping[str, Any]) -> Definitions:
    """Return what the pillar of the runner (or of ``immutable:pillar_id``) defines."""
    minion_id = spec.settings(opts).pillar_id or opts["id"]
    return spec.definitions(pillar(opts, minion_id, {"id": minion_id, **opts.get("grains", {})}))


def machine_config(opts: Mapping[str, Any], master: str) -> dict[str, Any]:
    """Return the minion config by which a machine finds this master."""
    config = {"master": master, "master_port": opts["ret_port"], "publish_port": opts["publish_port"]}
    return config | ({"transport": opts["transport"]} if opts["transport"] != "zeromq" else {})


class Jobs:
    """Jobs on single minions. Any thread may call; each has a client of its own, as Salt's are not to be shared."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = {**opts, "gather_job_timeout": ANSWER_WITHIN}
        self._clients = threading.local()

    def run(self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run one function to its end, however long that takes, and return its result.

        Raises ``NoAnswer`` when the minion neither answers nor is at work, ``CommandExecutionError`` when the
        function failed.
        """
        if not hasattr(self._clients, "client"):
            self._clients.client = salt.client.LocalClient(mopts=copy.copy(self._opts))
        how = {"kwarg": dict(kwargs or {}), "full_return": True}
        try:
            done = self._clients.client.cmd(minion_id, fun, list(args), ANSWER_WITHIN, "list", **how)
        except (SaltClientError, SaltReqTimeoutError) as err:
            raise NoAnswer(f"{minion_id} cannot be asked through the master: {err}") from err
        answer = done.get(minion_id) if isinstance(done, dict) else None
        if not isinstance(answer, dict) or "ret" not in answer:
            raise NoAnswer(f"{minion_id} does not answer")
        if answer.get("retcode"):
            raise CommandExecutionError(f"{minion_id}: {fun}: {answer['ret']}")
        return answer["ret"]


class Minions:
    """Enrolment, events and checks of a fleet's machines."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)
        self._stubs = Path(opts["pki_dir"], "minions_autosign")
        self._keys = threading.Lock()
        self._jobs = Jobs(opts)
        self._wheels: Any = None
        self._bus = salt.utils.event.get_event("master", opts=self._opts, listen=True)
        self._knocked: dict[str, str] = {}

    def close(self) -> None:
        """Leave the event bus, and let go of Salt's clients."""
        self._bus.destroy()
        if hasattr(self._wheels, "destroy"):  # since Salt 3008
            self._wheels.destroy()

    def expect(self, minion_id: str) -> None:
        """Let the first key that is offered for this id be accepted; Salt's master consumes the stub."""
        self._stubs.mkdir(mode=0o700, exist_ok=True)
        (self._stubs / minion_id).touch(mode=0o600)

    def enrol(self, minion_id: str) -> dict[str, str]:
        """Make a key pair for this id, accept it, and return it as ``priv`` and ``pub`` (PEM).

        For an id that everybody can know, such as a recipe's: there is no moment at which another key would do.
        """
        with self._keys:
            pair = self._wheel("key.gen_accept", id_=minion_id, force=True)
        if not pair.get("priv"):
            raise CommandExecutionError(f"Salt made no key for {minion_id}")
        return {"priv": pair["priv"], "pub": pair["pub"]}

    def forget(self, minion_id: str) -> None:
        """Remove the stub and every key of this id."""
        with suppress(FileNotFoundError):
            (self._stubs / minion_id).unlink()
        with self._keys:
            self._wheel("key.delete", match=minion_id)

    def known(self) -> set[str]:
        """Return the ids that have a stub or a key of any standing."""
        with self._keys:
            keys = self._wheel("key.list_all")
        stubs = {stub.name for stub in self._stubs.iterdir()} if self._stubs.is_dir() else set()
        return stubs.union(*(keys.get(kind, []) for kind in _KEYS))

    def _wheel(self, fun: str, **kwargs: Any) -> dict[str, Any]:
        if self._wheels is None:  # costs half a second, and not every command needs it
            self._wheels = salt.wheel.WheelClient(self._opts)
        done = self._wheels.cmd(fun, kwarg=kwargs, print_event=False)
        return done if isinstance(done, dict) else {}

    def poll(self) -> list[Event]:
        """Return what was said on the event bus since the last call."""
        found = []
        while (said := self._bus.get_event(wait=0, full=True, no_block=True)) is not None:
            event = self._read(said["tag"], said["data"])
            if event is not None:
                found.append(event)
        return found

    def _read(self, tag: str, data: Mapping[str, Any]) -> Event | None:
        words = tag.split("/")
        if len(words) == 4 and words[:2] == ["salt", "minion"] and words[3] == "start":
            return Event("started", words[2])
        if tag == "salt/auth" and data.get("pub"):
            first = self._knocked.setdefault(data["id"], data["pub"])
            if first != data["pub"] or data.get("act") == "denied":
                return Event("intruder", data["id"])
        return None

    def image_of(self, minion_id: str) -> str:
        """Return the digest of the image that a machine says it runs: one job there and back."""
        answer = self._jobs.run(minion_id, "immutable.status")
        return str(answer.get("digest") or "")

    def check(self, minion_id: str, address: str | None, check: FunctionCheck | HttpCheck) -> str | None:
        """Return why a machine is not healthy, or None if it is; ``NoAnswer`` if nothing could be learned."""
        if isinstance(check, HttpCheck):
            return _http(check, minion_id, address)
        try:
            answer = self._jobs.run(minion_id, check.fun, check.args, check.kwargs)
        except NoAnswer:
            raise
        except CommandExecutionError as err:
            return str(err)
        return None if answer else f"{check.fun} {' '.join(map(str, check.args))} says {answer!r}"


def _http(check: HttpCheck, minion_id: str, address: str | None) -> str | None:
    url = check.url.format(address=address, minion_id=minion_id)
    try:
        # A machine is asked directly: a proxy could answer in its place.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=check.timeout):
            return None
    except urllib.error.HTTPError as err:
        return f"{url} answers {err.code} {err.reason}"
    except (http.client.HTTPException, OSError) as err:
        reason = getattr(err, "reason", err)
        if isinstance(reason, ConnectionRefusedError):
            return f"{url}: {reason}"
        raise NoAnswer(f"{url}: {reason}") from err
