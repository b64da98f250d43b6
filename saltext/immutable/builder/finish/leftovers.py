"""Leftovers of the bake that a layer must not have: identities, and paths of the machine that baked it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.finish import private_keys, ssh_host_keys
from saltext.immutable.builder.finish.private_keys import OURS, listed
from saltext.immutable.builder.finish.scrub import is_real
from saltext.immutable.builder.finish.search import Pattern

PATHS, BAKE_ID, HOST_NAME, ADDRESS = "paths of the bake", "bake id", "host name", "address"
MACHINE_ID = "machine id"
_IDENTITIES = {
    BAKE_ID: "holds the bake_id of the recipe, which no machine has",
    HOST_NAME: "holds the host name of the machine that baked it, which no machine has",
    ADDRESS: "holds the address of the machine that baked it",
    MACHINE_ID: "holds the machine-id of the machine that baked it, which no other machine has",
}
_WAY_OUT = "; let a state of at_launch write the file, or give the recipe `bake_identity: {{{}: ok}}`"
_NOT_KEPT = "no image keeps what is of one bake or machine (/tmp, /var/tmp, caches, the content of logs, /etc/hostname)"
_AT_LAUNCH = "; if a machine needs what these states write, let a state of at_launch do it"
_IDENTITY = ("etc/salt/minion_id", "etc/salt/pki/**/*", "var/lib/salt/pki/**/*", mirrors.APT_CONF)
_OF_MACHINE = ("etc/hostname", ssh_host_keys.KEYS)
"""Files that `scrub` takes out of an image, because each machine has its own."""
_HOST_NAME_FILE = "/etc/hostname"
"""Written by commands, too; packages write the others."""
_FILES = 20
"""Files that are listed for one kind of finding."""


def patterns(
    bake_id: str | None = None, address: str | None = None, machine_id: str | None = None
) -> dict[str, Pattern]:
    """Return the patterns to search a layer for, by kind of finding.

    ``bake_id``, ``address`` and ``machine_id``: those of the machine in which states made the layer, if one did.
    """
    found = {private_keys.KIND: private_keys.PATTERN}
    if bake_id and address:
        found[PATHS] = Pattern((b"/run/immutable-", mirrors.CA_BUNDLE.encode()), skip=OURS)
        found[BAKE_ID] = Pattern((bake_id.encode(),), _whole_word(bake_id, rb"[A-Za-z0-9._-]"), OURS)
        host_name = bake_id.partition(".")[0]
        if host_name != bake_id and "-" in host_name:  # a plain word such as web is in many files
            found[HOST_NAME] = Pattern((host_name.encode(),), _whole_word(host_name, rb"[A-Za-z0-9._-]"), OURS)
        if machine_id:
            found[MACHINE_ID] = Pattern((machine_id.encode(),), skip=OURS)
        found[ADDRESS] = Pattern((address.encode(),), _whole_word(address, rb"[0-9.]"), OURS)
    return found


def _whole_word(word: str, letters: bytes) -> re.Pattern[bytes]:
    """Return an expression for a word that is not part of a longer one: 10.0.0.2 does not match in 10.0.0.20.

    ``letters``: the class of characters that words consist of. A dot at the end may follow: it ends a sentence.
    """
    after = letters.replace(b".", b"")
    return re.compile(rb"(?<!" + letters + rb")" + re.escape(word.encode()) + rb"(?!\.?" + after + rb")")


def of_each_machine(tree: Path, writers: Mapping[str, str], allowed: Sequence[str] = ()) -> list[str]:
    """Return a sentence for each file that states wrote and that no image has, since each machine has its own.

    ``tree``: before it is scrubbed. ``writers`` and ``allowed``: as for `warnings`.
    """
    files = (file for glob in _OF_MACHINE for file in sorted(tree.glob(glob)) if file.is_file())
    paths = [f"/{file.relative_to(tree)}" for file in files if not file.is_symlink()]
    return [
        f"{path} is not in the image, since each machine has its own ({writers.get(path, 'a command')} wrote it)"
        + _WAY_OUT.format(path)
        for path in paths
        if (path in writers or path == _HOST_NAME_FILE) and path not in allowed
    ]


def refuse(tree: Path, found: Mapping[str, Sequence[str]]) -> None:
    """Raise CommandExecutionError where a layer holds an identity, or names paths of the machine that baked it.

    ``found``: the result of a search for `patterns`.
    """
    if identity := sorted(_identity(tree)):
        raise CommandExecutionError(
            f"the layer holds the identity of the machine that baked it: {listed(identity)}; let no state write it"
        )
    if temporary := [path for path in found.get(PATHS, ()) if path.startswith("etc/")]:
        raise CommandExecutionError(
            f"a file names a path below /run that only the machine that bakes has: {listed(temporary)}; let the state "
            "write a path of the image (a CA bundle, for example, must not be taken from the environment)"
        )


def _identity(tree: Path) -> Iterator[str]:
    """Yield the files of the layer that identify a minion or machine, or configure apt for the bake."""
    for pattern in _IDENTITY:
        yield from (str(file.relative_to(tree)) for file in tree.glob(pattern) if _is_inside(tree, file))
    machine_id = tree / "etc/machine-id"
    if _is_inside(tree, machine_id) and machine_id.stat().st_size:
        yield "etc/machine-id"


def _is_inside(tree: Path, file: Path) -> bool:
    """Return whether it is a file of the tree: a symbolic link in a tree may lead to a file of this host."""
    return file.is_file() and file.resolve().is_relative_to(tree.resolve())


def written(tree: Path, writers: Mapping[str, str]) -> dict[str, bool]:
    """Return those of the paths that states wrote which a tree has, and whether each is more than an empty file.

    ``writers``: path to state of the files that states wrote.
    """
    files = {path: tree / path.lstrip("/") for path in writers if path.startswith("/")}
    there = {path: file for path, file in files.items() if is_real(tree, file.parent) and os.path.lexists(file)}
    return {path: not file.is_file() or file.is_symlink() or file.stat().st_size > 0 for path, file in there.items()}


def removed(tree: Path, before: Mapping[str, bool], writers: Mapping[str, str]) -> list[str]:
    """Return a sentence, if any, about files that states wrote to a place of which no layer keeps the content.

    ``before``: the result of `written` before the tree was slimmed and scrubbed. Files of which each machine has its
    own are left to `of_each_machine`.
    """
    now = written(tree, writers)
    lost = [path for path, full in before.items() if full and not now.get(path)]
    own = [path for path in lost if any(fnmatchcase(path[1:], glob) for glob in _OF_MACHINE)]
    gone = [f"{path} ({writers[path]})" for path in lost if path not in own]
    more = f" and {len(gone) - _FILES} more" if len(gone) > _FILES else ""
    return [f"{_NOT_KEPT}: {', '.join(gone[:_FILES])}{more}{_AT_LAUNCH}"] if gone else []


def warnings(
    found: Mapping[str, Sequence[str]], writers: Mapping[str, str] = MappingProxyType({}), allowed: Sequence[str] = ()
) -> list[str]:
    """Return a sentence for each file with a finding that may be intended; those that states wrote come first.

    ``found`` as for `refuse`. ``writers``: path to state of the files that states wrote. ``allowed``: paths (globs) of
    the recipe's ``bake_identity``.
    """
    sentences, more = list[str](), list[str]()
    for kind, what in {private_keys.KIND: private_keys.WARNING, **_IDENTITIES}.items():
        of_identity = kind in _IDENTITIES
        paths = [f"/{path}" for path in found.get(kind, ())]
        if of_identity:
            paths = [path for path in paths if not any(fnmatchcase(path, glob) for glob in allowed)]
            paths.sort(key=lambda path: path not in writers)
        for path in paths[:_FILES]:
            by = f" ({writers[path]} wrote it)" if path in writers else ""
            way_out = _WAY_OUT.format(path) if of_identity else ""
            sentences.append(f"{path} {what}{by}{way_out}")
        if len(paths) > _FILES:
            more.append(f"... and {len(paths) - _FILES} more files ({kind})")
    return sentences + more
