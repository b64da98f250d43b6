"""What a finished layer must not have of its making: the identity of who baked, the way by which, keys of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.finish.search import Look
from saltext.immutable.builder.sources.minion import VENV

KEYS, PATHS, BAKE_ID, ADDRESS = "private keys", "paths of the bake", "bake id", "address"
_OURS = (f"{VENV[1:]}/",)
"""Salt and its Python packages: they name such paths, and have keys among their examples."""
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\n|\s)+(?:[A-Za-z-]+: [^\n]*\n)*\s*[A-Za-z0-9+/=]{16}"
)
_IDENTITY = ("etc/salt/minion_id", "etc/salt/pki/**/*", "var/lib/salt/pki/**/*", mirrors.APT_CONF)
_FILES = 20
"""Files that are named for one finding."""


def looks(bake_id: str | None = None, address: str | None = None) -> dict[str, Look]:
    """Return what is looked for in a layer; of one that a machine made, with the id and the address that it had."""
    found = {KEYS: Look((b"PRIVATE KEY",), _PRIVATE_KEY, _OURS, programs=False)}  # libgnutls tests itself with some
    if bake_id and address:
        found[PATHS] = Look((b"/run/immutable-", mirrors.CA_BUNDLE.encode()), but=_OURS)
        found[BAKE_ID] = Look((bake_id.encode(),), _alone(bake_id, rb"[A-Za-z0-9._-]"), _OURS)
        found[ADDRESS] = Look((address.encode(),), _alone(address, rb"[0-9.]"), _OURS)
    return found


def _alone(word: str, more: bytes) -> re.Pattern[bytes]:
    """Return what finds a word that is not part of a longer one: 10.0.0.2 is not in 10.0.0.20."""
    return re.compile(rb"(?<!" + more + rb")" + re.escape(word.encode()) + rb"(?!" + more.replace(b".", b"") + rb")")


def refuse(tree: Path, found: Mapping[str, Sequence[str]]) -> None:
    """Raise where a layer has what would make each machine of the image the one that baked it, or what it was lent."""
    if left := sorted(_left(tree)):
        raise CommandExecutionError(f"{_named(left)}: this is of the machine that bakes; no state may leave it there")
    if lent := [path for path in found.get(PATHS, ()) if path.startswith("etc/")]:
        raise CommandExecutionError(
            f"{_named(lent)}: a path below /run is named that only the machine that bakes has (its CA bundle, for "
            "example, from the environment); let the state write another one"
        )


def _left(tree: Path) -> Iterator[str]:
    for pattern in _IDENTITY:
        yield from (str(file.relative_to(tree)) for file in tree.glob(pattern) if _is_of(tree, file))
    machine = tree / "etc/machine-id"
    if _is_of(tree, machine) and machine.stat().st_size:
        yield "etc/machine-id"


def _is_of(tree: Path, file: Path) -> bool:
    """Tell whether it is a file of the tree: a link in an image leads to files of this host."""
    return file.is_file() and file.resolve().is_relative_to(tree.resolve())


def warnings(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each file that has what is not certain to be wrong."""
    told = {
        KEYS: "holds a private key, and all machines of this image would share it; let a state of at_launch make it",
        BAKE_ID: "holds the id that it was baked under, which no machine has; let a state of at_launch write it",
        ADDRESS: "holds the address of the machine that baked it; let a state of at_launch write it",
    }
    sentences = [f"/{path} {said}" for kind, said in told.items() for path in found.get(kind, ())[:_FILES]]
    more = {kind: len(found.get(kind, ())) - _FILES for kind in told}
    return [*sentences, *(f"... and {many} more files ({kind})" for kind, many in more.items() if many > 0)]


def refuse_keys(recipe: str, paths: Sequence[str]) -> None:
    """Raise where an image has private keys; for a recipe that says ``private_keys: refuse``."""
    if paths:
        raise CommandExecutionError(
            f"{recipe}: {_named(paths)}: private keys, which all machines of this image would share; let a state of "
            "at_launch make them, or write private_keys: warn"
        )


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(f"/{path}" for path in paths[:5]) + more
