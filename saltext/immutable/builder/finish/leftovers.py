"""Leftovers of the bake that a layer must not have: identities, paths of the machine that baked it, private keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.finish.search import Pattern
from saltext.immutable.builder.sources.minion import VENV

KEYS, PATHS, BAKE_ID, ADDRESS = "private keys", "paths of the bake", "bake id", "address"
_OURS = (f"{VENV[1:]}/",)
"""Salt and its Python packages are not searched: they name such paths, and have keys among their examples."""
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\n|\s)+(?:[A-Za-z-]+: [^\n]*\n)*\s*[A-Za-z0-9+/=]{16}"
)
_IDENTITY = ("etc/salt/minion_id", "etc/salt/pki/**/*", "var/lib/salt/pki/**/*", mirrors.APT_CONF)
_FILES = 20
"""Files that are listed for one kind of finding."""


def patterns(bake_id: str | None = None, address: str | None = None) -> dict[str, Pattern]:
    """Return the patterns to search a layer for, by kind of finding.

    ``bake_id`` and ``address``: those of the machine in which states made the layer, if one did.
    """
    # libgnutls has keys in it, for tests of itself.
    found = {KEYS: Pattern((b"PRIVATE KEY",), _PRIVATE_KEY, _OURS, in_programs=False)}
    if bake_id and address:
        found[PATHS] = Pattern((b"/run/immutable-", mirrors.CA_BUNDLE.encode()), skip=_OURS)
        found[BAKE_ID] = Pattern((bake_id.encode(),), _whole_word(bake_id, rb"[A-Za-z0-9._-]"), _OURS)
        found[ADDRESS] = Pattern((address.encode(),), _whole_word(address, rb"[0-9.]"), _OURS)
    return found


def _whole_word(word: str, letters: bytes) -> re.Pattern[bytes]:
    """Return an expression for a word that is not part of a longer one: 10.0.0.2 does not match in 10.0.0.20.

    ``letters``: the class of characters that words consist of. A dot may follow: it ends a sentence.
    """
    after = letters.replace(b".", b"")
    return re.compile(rb"(?<!" + letters + rb")" + re.escape(word.encode()) + rb"(?!" + after + rb")")


def refuse(tree: Path, found: Mapping[str, Sequence[str]]) -> None:
    """Raise CommandExecutionError where a layer holds an identity, or names paths of the machine that baked it.

    ``found``: the result of a search for `patterns`.
    """
    if identity := sorted(_identity(tree)):
        raise CommandExecutionError(
            f"the layer holds the identity of the machine that baked it: {_list(identity)}; let no state write it"
        )
    if temporary := [path for path in found.get(PATHS, ()) if path.startswith("etc/")]:
        raise CommandExecutionError(
            f"a file names a path below /run that only the machine that bakes has: {_list(temporary)}; let the state "
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


def warnings(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each file with a finding that may be intended. ``found`` as for `refuse`."""
    endings = {
        KEYS: "holds a private key, and all machines of this image would share it; let a state of at_launch make it",
        BAKE_ID: "holds the bake_id of the recipe, which no machine has; let a state of at_launch write the file",
        ADDRESS: "holds the address of the machine that baked it; let a state of at_launch write the file",
    }
    sentences = [f"/{path} {ending}" for kind, ending in endings.items() for path in found.get(kind, ())[:_FILES]]
    more = {kind: len(found.get(kind, ())) - _FILES for kind in endings}
    return [*sentences, *(f"... and {many} more files ({kind})" for kind, many in more.items() if many > 0)]


def refuse_keys(recipe: str, paths: Sequence[str]) -> None:
    """Raise CommandExecutionError where an image has private keys; for a recipe with ``private_keys: refuse``.

    ``paths``: the files that hold one, in all layers of the image.
    """
    if paths:
        raise CommandExecutionError(
            f"{recipe}: the image holds private keys, which all of its machines would share: {_list(paths)}; let a "
            "state of at_launch make them, or set private_keys: warn in the recipe"
        )


def _list(paths: Sequence[str]) -> str:
    """Return the first five paths as text, and how many more there are."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(f"/{path}" for path in paths[:5]) + more
