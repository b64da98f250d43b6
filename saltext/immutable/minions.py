"""Salt seen from the master: the pillar's definitions, enrolment, start events, jobs."""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import salt.cache
import salt.client
import salt.key
import salt.pillar
import salt.utils.event
import salt.utils.sdb
from salt.exceptions import CommandExecutionError, SaltClientError, SaltInvocationError, SaltReqTimeoutError
from salt.utils.crypt import pem_finger

from saltext.immutable import spec
from saltext.immutable.host import tail
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Definitions, FunctionCheck, HttpCheck

ANSWER_WITHIN = 5
"""Seconds for which a minion may be silent before it is asked whether the job still runs."""
POLLED = 300
"""Events that are taken off the bus at a time: on a busy master there are always more."""
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})\b ?(.*)")
_STATUS_CALL = FunctionCheck("immutable.status")
_KEYS = ("minions", "minions_pre", "minions_denied", "minions_rejected")


class NoAnswer(CommandExecutionError):  # type: ignore[misc]
    """Nothing could be learned about a machine: neither that it is well nor that it is ill."""


class LaunchFailed(CommandExecutionError):  # type: ignore[misc]
    """What a machine applies at its launch failed: no patience mends that."""


@dataclass(frozen=True)
class Event:
    """Something that the event bus said of one minion id. Minions can say what they like there: it is but a hint."""

    kind: Literal["started", "denied"]
    """``denied``: somebody knocked under that id with another key."""
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
    return spec.definitions(pillar(opts, minion_id, {**opts.get("grains", {}), "id": minion_id}))


def machine_config(opts: Mapping[str, Any], master: str) -> dict[str, Any]:
    """Return the minion config by which a machine finds this master."""
    config = {"master": master, "master_port": opts["ret_port"], "publish_port": opts["publish_port"]}
    # Another machine on the bridge could claim to be the master: only the one with this key is.
    hash_type = opts["hash_type"]
    config |= {"master_finger": pem_finger(_public_key(opts), sum_type=hash_type), "hash_type": hash_type}
    return config | ({"transport": opts["transport"]} if opts["transport"] != "zeromq" else {})


def _public_key(opts: Mapping[str, Any]) -> str:
    if opts.get("cluster_id"):
        return str(Path(opts["cluster_pki_dir"], "cluster.pub"))
    return str(Path(opts["pki_dir"], "master.pub"))


def private_key(opts: Mapping[str, Any]) -> tuple[bytes, str | None]:
    """Return the master's private key (PEM) and its passphrase: the half of what every minion knows it by."""
    clustered = bool(opts.get("cluster_id"))
    path = Path(_public_key(opts)).with_suffix(".pem")
    try:
        pem = path.read_bytes()
    except OSError as err:
        raise CommandExecutionError(f"the master's key {path} cannot be read: {err}") from err
    phrase = opts.get("cluster_key_pass" if clustered else "key_pass")
    return pem, salt.utils.sdb.sdb_get(phrase, dict(opts)) if phrase else None


def _checked(minion_id: str) -> str:
    """Return an id that is one id and one file name; Salt would take ``*`` for every key."""
    try:
        return reading.minion_id(minion_id)
    except ValueError as err:
        raise SaltInvocationError(f"minion_id: {err}") from err


class Client(salt.client.LocalClient):  # type: ignore[misc]
    """Salt's client, which does not print that nobody was reached: standard output is for results, as JSON perhaps."""

    def _check_pub_data(self, pub_data: Any, listen: bool = True) -> dict[str, Any]:
        if isinstance(pub_data, Mapping) and ("error" in pub_data or not pub_data.get("minions")):
            return {}
        return dict(super()._check_pub_data(pub_data, listen=listen))


class Jobs:
    """Jobs on single minions. Any thread may call; each has a client of its own, as Salt's are not to be shared."""

    def __init__(self, opts: Mapping[str, Any], patience: int = ANSWER_WITHIN) -> None:
        self._opts = {**opts, "gather_job_timeout": patience}
        self._patience = patience
        self._clients = threading.local()
        self._loading = threading.Lock()
        self._loaded: Client | None = None

    def run(self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run one function to its end, however long that takes, and return its result.

        Raises ``NoAnswer`` when the minion neither answers nor is at work, ``CommandExecutionError`` when the
        function failed.
        """
        how = {"kwarg": dict(kwargs or {}), "full_return": True}
        try:
            done = self._client().cmd(minion_id, fun, list(args), self._patience, "list", **how)
        except (SaltClientError, SaltReqTimeoutError) as err:
            raise NoAnswer(f"{minion_id} cannot be asked through the master: {err}") from err
        answer = done.get(minion_id) if isinstance(done, dict) else None
        # For a minion that is silent Salt makes up an answer, with a text as its result.
        if not isinstance(answer, dict) or "ret" not in answer or answer.get("out") == "no_return":
            raise NoAnswer(f"{minion_id} does not answer")
        return _returned(minion_id, fun, answer["ret"], answer)

    def ask(
        self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None, *, within: float
    ) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result; raises as ``run`` does."""
        said = self._job(minion_id, fun, list(args), dict(kwargs or {}), within)
        return _returned(minion_id, fun, said["return"], said)

    def ask_all(self, minion_id: str, calls: Sequence[FunctionCheck], *, within: float) -> list[Any]:
        """Run several functions, each of another name, in one job: for the minion that is one process in place of many.

        Return the result of each; of one that failed, the ``CommandExecutionError`` itself.
        """
        arguments = [[*call.args, *([{"__kwarg__": True, **call.kwargs}] if call.kwargs else [])] for call in calls]
        said = self._job(minion_id, [call.fun for call in calls], arguments, {}, within)
        return [_one_of(minion_id, call.fun, said) for call in calls]

    def _job(
        self, minion_id: str, fun: str | list[str], args: list[Any], kwargs: dict[str, Any], within: float
    ) -> Mapping[str, Any]:
        """Run a job, and return all that the minion says of it."""
        deadline = time.monotonic() + within
        client = self._client()
        how = {"timeout": ANSWER_WITHIN, "kwarg": kwargs}
        try:
            client.event.connect_pub(timeout=ANSWER_WITHIN)  # else an answer could come before we listen
            job = client.run_job(minion_id, fun, args, "list", **how)
            tag = f"salt/job/{job.get('jid')}/ret/{minion_id}"
            wait = max(0.01, deadline - time.monotonic())  # 0 would be for ever
            said = client.event.get_event(wait, tag, match_type="startswith") if job else None
        except (SaltClientError, SaltReqTimeoutError, OSError) as err:
            raise NoAnswer(f"{minion_id} cannot be asked through the master: {err}") from err
        finally:
            client.event.close_pub()
        if not isinstance(said, Mapping) or "return" not in said:
            raise NoAnswer(f"{minion_id} does not answer")
        return said

    def _client(self) -> Client:
        if not hasattr(self._clients, "client"):
            self._clients.client = self._another()
        return cast(Client, self._clients.client)

    def _another(self) -> Client:
        """Return one more client: with a bus of its own, and the modules of the first, which take a while to find."""
        with self._loading:
            self._loaded = self._loaded or Client(mopts=copy.copy(self._opts))
        client = copy.copy(self._loaded)
        client.opts = copy.copy(self._opts)
        client.event = salt.utils.event.get_event("master", opts=client.opts, listen=False)
        return client


def _returned(minion_id: str, fun: str, value: Any, answer: Mapping[str, Any]) -> Any:
    if answer.get("retcode"):
        raise CommandExecutionError(f"{minion_id}: {fun}: {value}")
    return value


def _one_of(minion_id: str, fun: str, said: Mapping[str, Any]) -> Any:
    """Return what one function of a job of several gave. Of one that raised there is a traceback and no code."""
    values, codes = said["return"], said.get("retcode")
    if not isinstance(values, Mapping) or not isinstance(codes, Mapping) or fun not in values:
        return CommandExecutionError(f"{minion_id}: {fun}: {values!r}")
    if fun in codes and not codes[fun]:
        return values[fun]
    return CommandExecutionError(f"{minion_id}: {fun}: {tail(str(values[fun]).strip(), 1)}")


class Minions:
    """Enrolment, events and checks of a fleet's machines."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        _require_master(opts)
        self._opts = dict(opts)
        # Where Salt's masters look for stubs (salt.daemons.masterapi.AutoKey.check_autosign_dir).
        pki = opts["cluster_pki_dir"] if opts.get("cluster_id") else opts["pki_dir"]
        self._stubs = Path(pki, "minions_autosign")
        self._keys = threading.Lock()
        self._jobs = Jobs(opts)
        self._bus = salt.utils.event.get_event("master", opts=self._opts, listen=True)

    def close(self) -> None:
        """Leave the event bus."""
        self._bus.destroy()

    def expect(self, minion_id: str) -> None:
        """Let the first key that is offered for this id be accepted; Salt's master consumes the stub."""
        self._stubs.mkdir(mode=0o700, exist_ok=True)
        (self._stubs / _checked(minion_id)).touch(mode=0o600)

    def enrol(self, minion_id: str, pub: str) -> None:
        """Accept this public key (PEM) for an id.

        For an id that everybody can know, such as a recipe's: there is no moment at which another key would do. As
        ``key.gen_accept`` does it, but the private half is made where it is used: what a wheel function returns goes
        into the job cache and on the event bus.
        """
        if "keys.cache_driver" in self._opts:  # since Salt 3008
            keys = salt.cache.Cache(self._opts, driver=self._opts["keys.cache_driver"])
            keys.store("keys", _checked(minion_id), {"pub": pub, "state": "accepted"})
        else:
            Path(self._opts["pki_dir"], "minions", _checked(minion_id)).write_text(pub)

    def forget(self, minion_id: str) -> None:
        """Remove the stub and every key of this id."""
        with suppress(FileNotFoundError):
            (self._stubs / _checked(minion_id)).unlink()
        with self._stock() as keys:
            keys.delete_key(match=_checked(minion_id))

    def known(self) -> set[str]:
        """Return the ids that have a stub or a key of any standing."""
        keys = self._listed()
        stubs = {stub.name for stub in self._stubs.iterdir()} if self._stubs.is_dir() else set()
        return stubs.union(*(keys.get(kind, []) for kind in _KEYS))

    def _listed(self) -> dict[str, list[str]]:
        """Return the ids that have a key, by its standing."""
        with self._stock() as keys:
            return dict(keys.list_keys())

    @contextmanager
    def _stock(self) -> Iterator[Any]:
        """Give Salt's keys, as its wheel functions have them, to one thread at a time."""
        with self._keys, salt.key.get_key(self._opts) as keys:
            try:
                yield keys
            except OSError as err:
                raise CommandExecutionError(f"the keys of this master cannot be used: {err}") from err

    def poll(self) -> list[Event]:
        """Return some of what was said on the event bus since the last call."""
        found = []
        for _ in range(POLLED):
            said = self._bus.get_event(wait=0, full=True, no_block=True)
            if said is None:
                break
            event = _read(said["tag"], said["data"])
            if event is not None:
                found.append(event)
        return found

    def contested(self, minion_id: str) -> bool:
        """Tell whether Salt's master denied a key for this id, because it knows another one."""
        return minion_id in self._listed().get("minions_denied", [])

    def accepted(self, minion_id: str) -> bool:
        """Tell whether a minion of this id has a key that the master accepted."""
        return minion_id in self._listed().get("minions", [])

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result."""
        return self._jobs.ask(minion_id, fun, kwargs=kwargs, within=within)

    def image_of(self, minion_id: str, within: float) -> str:
        """Return the digest of the image that a machine says it runs, '' for none: one job there and back.

        Raises ``NoAnswer`` while its launch phase is under way, ``LaunchFailed`` when that failed.
        """
        return _image(minion_id, self._jobs.ask(minion_id, "immutable.status", within=within))

    def look(self, minion_id: str, checks: Sequence[FunctionCheck], within: float) -> tuple[str, list[str | None]]:
        """Return what ``image_of`` does, and what ``check`` does of each, in one job; each has another function."""
        if not checks:
            return self.image_of(minion_id, within), []
        status, *answers = self._jobs.ask_all(minion_id, [_STATUS_CALL, *checks], within=within)
        if isinstance(status, CommandExecutionError):
            raise status
        return _image(minion_id, status), [_why(*pair) for pair in zip(checks, answers, strict=True)]

    def check(self, minion_id: str, address: str | None, check: FunctionCheck | HttpCheck, within: float) -> str | None:
        """Return why a machine is not healthy, or None if it is; ``NoAnswer`` if nothing could be learned."""
        if isinstance(check, HttpCheck):
            return _http(check.url.format(address=address, minion_id=minion_id), min(check.timeout, within))
        try:
            answer = self._jobs.ask(minion_id, check.fun, check.args, check.kwargs, within=within)
        except NoAnswer:
            raise
        except CommandExecutionError as err:
            answer = err
        return _why(check, answer)


def _image(minion_id: str, status: Any) -> str:
    digest = status.get("digest") or "" if isinstance(status, Mapping) else None
    if not isinstance(digest, str):
        raise NoAnswer(f"{minion_id}: immutable.status says {status!r}")
    _require_launched(status.get("launched", True))
    return digest


def _why(check: FunctionCheck, answer: Any) -> str | None:
    if isinstance(answer, CommandExecutionError):
        return str(answer)
    return None if answer else f"{check.fun} {' '.join(map(str, check.args))} says {answer!r}"


def _require_launched(launched: Any) -> None:
    """Raise unless the launch phase is over and went well; a machine of an older pack has none and does not say."""
    if isinstance(launched, str):
        raise LaunchFailed(launched)
    if launched is not True:
        raise NoAnswer("its launch phase has not ended")


def _require_master(opts: Mapping[str, Any]) -> None:
    """Raise unless a master listens: Salt's own clients would wait for it in silence."""
    if opts["ipc_mode"] == "tcp":
        return
    with socket.socket(socket.AF_UNIX) as bus:
        try:
            bus.connect(os.path.join(opts["sock_dir"], "master_event_pub.ipc"))
        except OSError as err:
            raise CommandExecutionError(
                f"no Salt master listens in {opts['sock_dir']} ({err}); start it with "
                "systemctl start salt-master, or name the config of the one that runs with salt-run -c"
            ) from err


def _read(tag: str, data: Any) -> Event | None:
    """Return what an event says of a minion. As a minion may have sent it, its data can be of any shape."""
    words = tag.split("/")
    if len(words) == 4 and words[:2] == ["salt", "minion"] and words[3] == "start":
        return Event("started", words[2])
    if tag == "salt/auth" and isinstance(data, Mapping) and data.get("act") == "denied":
        minion_id = data.get("id")
        return Event("denied", minion_id) if isinstance(minion_id, str) else None
    return None


def _http(url: str, within: float) -> str | None:
    """Return why a URL does not answer 2xx or 3xx. Only the status counts: a machine cannot send us elsewhere."""
    try:
        line = asyncio.run(asyncio.wait_for(_status_line(urllib.parse.urlsplit(url)), within))
    except ConnectionRefusedError:
        return f"{url}: {os.strerror(errno.ECONNREFUSED)}"
    except asyncio.TimeoutError as err:
        raise NoAnswer(f"{url}: no answer within {within:g} s") from err
    except (OSError, ValueError) as err:
        raise NoAnswer(f"{url}: {err}") from err
    status = _STATUS.match(line)
    if status is None:
        raise NoAnswer(f"{url} answers {line!r}")
    return None if status[1][:1] in b"23" else f"{url} answers {status[1].decode()} {status[2].decode('latin-1')}"


async def _status_line(url: urllib.parse.SplitResult) -> bytes:
    """Ask the machine itself, and no proxy, which could answer in its place."""
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure or None)
    try:
        target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
        headers = f"Host: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: saltext-immutable\r\nConnection: close"
        writer.write(f"GET {target} HTTP/1.1\r\n{headers}\r\n\r\n".encode("ascii"))
        return (await reader.readline()).rstrip()
    finally:
        writer.transport.abort()
