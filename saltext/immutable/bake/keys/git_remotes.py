"""The repositories from which the master serves states and pillar: the commits that it has, and how a bake pins them.

Salt's gitfs serves the commit of a branch that was fetched last, and takes any name of hexadecimal digits for that of a
commit. A bake gives the commits of its beginning such names, in the clones that the master has in its cache: branches
of the clone, which gitfs does not list as environments. So nobody else sees them. They are no lock: what a killed bake
leaves of them delays nobody, and the next bake of the recipe removes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import salt.fileserver
import salt.fileserver.gitfs
import salt.pillar.git_pillar
import salt.utils.gitfs
from salt.exceptions import FileserverConfigError

from saltext.immutable.host import remove, write

Commit = dict[str, Any]
"""Of a remote: of (``states`` or ``pillar``), url (without credentials), ref and commit."""
_BACKENDS = ("gitfs", "git")
_SPEC = {"branch": "refs/remotes/origin/{}", "tag": "refs/tags/{}", "sha": "{}"}
_PINNING = ("pygit2", "gitpython")
"""Salt's providers that serve commits by name; its own ``gitcli`` serves branches and tags only."""
_HEADS = "refs/heads"
_DIGITS = 16
_MOST = 1000
"""Environments that are pinned: their names have to go into one variable of the environment of a process."""
_SCP = re.compile(r"(?P<host>(?:[^@/\s]+@)?[^/:\s]+):(?P<path>(?!//).+)")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")


@dataclass(frozen=True)
class Remotes:
    """What the master had of its remotes when the build of a layer began."""

    commits: Mapping[str, Sequence[Commit]] = field(default_factory=dict)
    """By environment the commit of each remote of gitfs; under '' those of git_pillar."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """By environment the name under which gitfs serves these commits during the build; empty where it does not."""
    reason: str = ""
    """Why gitfs does not; '' where it does, and where the master has no gitfs."""

    def used(self, envs: Iterable[str], *, pinned: bool) -> list[Commit]:
        """Return, each once, the commits of some environments and those of the pillar.

        Each says whether it was pinned. ``pinned``: those of the states were.
        """
        kept = [each for env in (*sorted(set(envs)), "") for each in self.commits.get(env, ())]
        once = [each for number, each in enumerate(kept) if each not in kept[:number]]
        return [{**each, "pinned": pinned and each["of"] == "states"} for each in once]

    def moved(self, opts: Mapping[str, Any], envs: Mapping[str, str | None]) -> str:
        """Return a sentence about a remote that is not pinned and has another commit now; '' where there is none."""
        states = {} if self.pins else _commits(_states(_gitfs(opts)))
        before = {(env, each["url"], each["ref"]): each["commit"] for env, each in _each(self.commits)}
        for env, each in _each(states | _of_pillar(opts, envs)):
            old, new = before.get((env, each["url"], each["ref"])), each["commit"]
            if old is not None and old != new:
                return f"{each['ref']} of {each['url']} moved from {old[:12]} to {new[:12]}"
        return ""


@contextmanager
def pinned(opts: Mapping[str, Any], bake_id: str, envs: Mapping[str, str | None]) -> Iterator[Remotes]:
    """Give the commits that the master has of its remotes, those of gitfs pinned while the block runs, if they can be.

    ``bake_id``: no two bakes that have the same one run at a time. ``envs``: saltenv and pillarenv.
    """
    gitfs, pillar = _gitfs(opts), _of_pillar(opts, envs)
    if gitfs is None:
        yield Remotes(pillar)
        return
    server = salt.fileserver.Fileserver({**opts, "fileserver_list_cache_time": 0})
    server.update()
    found = _states(gitfs)
    pins = {env: _name(bake_id, env) for env in sorted({*server.envs(), *found})}
    if reason := _unpinnable(server, gitfs, pins):
        yield Remotes(_commits(found) | pillar, {}, reason)
        return
    _clear(gitfs, bake_id)
    try:
        for env, served in found.items():
            for remote, _, commit in served:
                _write(Path(remote.gitdir, _HEADS, pins[env]), commit)
        yield Remotes(_commits(found) | pillar, pins)
    finally:
        _clear(gitfs, bake_id)


def plain_url(url: str) -> str:
    """Return a remote's URL as provenance names it (``git+https://...``), without credentials."""
    if url.startswith("/"):
        return f"git+file://{url}"
    if "://" not in url and (found := _SCP.fullmatch(url)):
        url = f"ssh://{found['host'].rpartition('@')[2]}/{found['path'].lstrip('/')}"
    return f"git+{_CREDENTIALS.sub('', url.partition('?')[0])}"


def _gitfs(opts: Mapping[str, Any]) -> Any:
    """Return Salt's gitfs with its remotes, None where the master has none."""
    if not set(_BACKENDS).intersection(opts.get("fileserver_backend") or ()) or not opts.get("gitfs_remotes"):
        return None
    more = {name: getattr(salt.fileserver.gitfs, name.upper()) for name in ("per_remote_overrides", "per_remote_only")}
    with suppress(FileserverConfigError):  # then the master serves without it, too, and its log says why
        return salt.utils.gitfs.GitFS({**opts, "fileserver_list_cache_time": 0}, opts["gitfs_remotes"], **more)
    return None


def _pillars(opts: Mapping[str, Any], envs: Mapping[str, str | None]) -> Iterator[Any]:
    """Yield the remotes of the external pillars that are in git."""
    module = salt.pillar.git_pillar
    more = {each: getattr(module, each.upper()) for each in ("per_remote_overrides", "per_remote_only", "global_only")}
    mine = {**opts, **{name: env for name, env in envs.items() if env}}
    for remotes in (each["git"] for each in opts.get("ext_pillar") or () if isinstance(each.get("git"), list)):
        with suppress(FileserverConfigError):
            yield from salt.utils.gitfs.GitPillar(mine, list(remotes), **more).remotes


def _unpinnable(server: Any, gitfs: Any, names: Mapping[str, str]) -> str:
    """Return why the environments cannot be pinned, '' where they can. ``names``: those for the pins."""
    for other in (each for each in server.backends() if each not in _BACKENDS):
        if any(server.file_list({"saltenv": env, "fsbackend": other}) for env in names):
            return f"the fileserver backend {other} serves files beside gitfs"
    if len(names) > _MOST:
        return f"gitfs has more than {_MOST} environments"
    for remote in gitfs.remotes:
        if remote.provider not in _PINNING:
            return f"gitfs_provider {remote.provider} serves no commits"
        if "sha" not in remote.ref_types:
            return f"gitfs_ref_types of {plain_url(remote.url)} has no sha"
        for env, name in names.items():
            same = all(getattr(remote, what)(env) == getattr(remote, what)(name) for what in ("root", "mountpoint"))
            if not same or remote.ref(name) != name or remote.env_is_exposed(env) != remote.env_is_exposed(name):
                return f"the settings of {plain_url(remote.url)} depend on the environment"
    return ""


def _states(gitfs: Any) -> dict[str, list[tuple[Any, str, str]]]:
    """Return by environment the remotes that serve it, each with the ref and the commit."""
    envs = gitfs.envs(ignore_cache=True) if gitfs else ()
    return {env: [(remote, *each) for remote in gitfs.remotes if (each := _served(remote, env))] for env in envs}


def _served(remote: Any, env: str) -> tuple[str, str] | None:
    """Return ref and commit that a remote serves in an environment, as ``GitProvider.get_tree`` finds the tree."""
    return _first(remote, remote.ref(env), remote.ref_types) if remote.env_is_exposed(env) else None


def _of_pillar(opts: Mapping[str, Any], envs: Mapping[str, str | None]) -> dict[str, list[Commit]]:
    """Return under '' the commits of git_pillar, as its ``checkout`` finds them."""
    found = [(each, _first(each, each.get_checkout_target(), ("branch", "tag"))) for each in _pillars(opts, envs)]
    known = [_described("pillar", remote, *each) for remote, each in found if each]
    return {"": known} if known else {}


def _first(remote: Any, ref: str | None, kinds: Iterable[str]) -> tuple[str, str] | None:
    """Return the first of a ref and the remote's fallback that its clone has, with its commit."""
    for name in filter(None, (ref, getattr(remote, "fallback", None))):
        for kind in kinds:
            if commit := _resolved(remote, _SPEC[kind].format(name)):
                return str(name), commit
    return None


def _resolved(remote: Any, spec: str) -> str:
    """Return the commit that a name of a clone leads to, '' where there is none."""
    try:
        if remote.provider == "pygit2":
            return str(remote.repo.revparse_single(f"{spec}^{{commit}}").id)
        if remote.provider == "gitpython":
            return str(remote.repo.commit(spec).hexsha)
        return str(remote._run_git(["rev-parse", "--verify", "--quiet", f"{spec}^{{commit}}"]).stdout.decode().strip())
    except Exception:  # each of the libraries has kinds of its own for a name that is not there
        return ""


def _commits(found: Mapping[str, Sequence[tuple[Any, str, str]]]) -> dict[str, list[Commit]]:
    return {env: [_described("states", *each) for each in served] for env, served in found.items()}


def _each(commits: Mapping[str, Sequence[Commit]]) -> Iterator[tuple[str, Commit]]:
    yield from ((env, each) for env, found in commits.items() for each in found)


def _described(of: str, remote: Any, ref: str, commit: str) -> Commit:
    return {"of": of, "url": plain_url(remote.url), "ref": ref, "commit": commit}


def _write(ref: Path, commit: str) -> None:
    ref.parent.mkdir(parents=True, exist_ok=True)
    write(ref, f"{commit}\n")


def _name(bake_id: str, env: str = "") -> str:
    """Return the name of a pin; without an environment, the beginning of all names of a bake."""
    return "".join(hashlib.sha256(each.encode()).hexdigest()[:_DIGITS] for each in (bake_id, env) if each)


def _clear(gitfs: Any, bake_id: str) -> None:
    """Remove the pins of a bake, and what gitfs keeps of the files that it served under their names."""
    folders = [Path(remote.gitdir, _HEADS) for remote in gitfs.remotes]
    folders += [Path(gitfs.cache_root, "refs"), Path(gitfs.hash_cachedir), Path(gitfs.file_list_cachedir)]
    for left in (each for folder in folders for each in folder.glob(f"{_name(bake_id)}*")):
        remove(left)
