"""Pillar values that a recipe marks as secret: are any of them in a layer? The values themselves never leave this file.

They are read in the machine that bakes and searched for on the builder: no job, event, error or store has them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.finish.search import OVERLAP, Look
from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.machines.machine import Machine

SHORTEST = 6
"""Characters of a value that is looked for: a shorter one is in many files by chance."""
_LONGEST = OVERLAP
"""Bytes that are compared. The first ones of a key or a certificate are enough."""
_UNBROKEN = 48
"""Characters of base64 that are compared: tools break its lines at 64 or 76."""
_LINE = 20
"""Characters from which on a single line of a value says that the value is there: it may have been indented."""
_FILES = 20
"""Files that are named for one value."""
# As `pillar.items` does it, but salt-call would return it to the master's job cache, and Salt 3008 masks every value.
_ASK = """
import json, sys, salt.client, salt.config, salt.pillar
saltenv, pillarenv = json.loads(sys.argv[1])
opts = salt.client.Caller(mopts=salt.config.minion_config("/etc/salt/minion")).sminion.opts
pillarenv = pillarenv or (saltenv if opts.get("pillarenv_from_saltenv") else opts["pillarenv"])
asked = salt.pillar.get_pillar(opts, dict(opts["grains"]), opts["id"], saltenv, pillarenv=pillarenv)
print(json.dumps(asked.compile_pillar(), default=str))
"""


@dataclass(frozen=True)
class Secret:
    """One value; it shows itself nowhere."""

    pillar: str
    """``db:password``"""
    value: str

    def __repr__(self) -> str:
        return f"Secret({self.pillar!r})"

    def forms(self) -> list[tuple[str, list[bytes]]]:
        """Return what it looks like in a file: how to say that, and the bytes of which any is enough."""
        plain, lines = self.value.strip(), self.value.split("\n")
        long = [line.strip() for line in lines if len(line.strip()) >= _LINE and not line.strip().startswith("-----")]
        texts = [plain, *([max(long, key=len)] if long and len(lines) > 1 else [])]
        return [("", [text.encode()[:_LONGEST] for text in texts]), (" as base64", list(_base64(plain.encode())))]


def _base64(value: bytes) -> Iterator[bytes]:
    """Yield the base64 of a value alone and after one or two other bytes, without what these would change."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value)
        whole = (before + len(value)) * 8 // 6
        yield encoded[-(-before * 8 // 6) : whole][:_UNBROKEN]


def known(machine: Machine, order: Mapping[str, Any]) -> list[Secret]:
    """Return the values that ``order['secrets']`` marks in the pillar of the bake, as its states see it."""
    if not order["secrets"]:
        return []
    words = ["timeout", "--kill-after=10", f"{order['within']:.0f}", f"{VENV}/bin/python", "-I", "-c", _ASK]
    done = machine.run([*words, json.dumps([order["saltenv"], order["pillarenv"]])])
    try:
        pillar = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as err:
        # What it said may hold values.
        raise CommandExecutionError(
            f"secrets: the pillar of {order['bake_id']} could not be read in the bake (exit code {done.returncode})"
        ) from err
    return list(marked(pillar, order["secrets"]))


def marked(pillar: Any, patterns: Sequence[str], path: tuple[str, ...] = ()) -> Iterator[Secret]:
    """Yield each text of the pillar whose path, or the beginning of it, fits a pattern: globs, one an element."""
    if isinstance(pillar, Mapping):
        for name, value in pillar.items():
            yield from marked(value, patterns, (*path, str(name)))
    elif isinstance(pillar, list):
        for number, value in enumerate(pillar):
            yield from marked(value, patterns, (*path, str(number)))
    elif isinstance(pillar, str) and len(pillar.strip()) >= SHORTEST and any(_fits(path, one) for one in patterns):
        yield Secret(":".join(path), pillar)


def _fits(path: Sequence[str], pattern: str) -> bool:
    globs = pattern.split(":")
    return len(path) >= len(globs) and all(map(fnmatchcase, path, globs))


@contextmanager
def concealed(secrets: Sequence[Secret]) -> Iterator[None]:
    """Take the values out of what an error says."""
    try:
        yield
    except CommandExecutionError as err:
        said = conceal(str(err), secrets)
        if said == str(err):
            raise
        raise CommandExecutionError(said) from None  # the cause holds them


def conceal(text: str, secrets: Sequence[Secret]) -> str:
    """Return a text without the values, and without any of their lines."""
    for secret in sorted(secrets, key=lambda one: -len(one.value)):
        parts = [secret.value.strip(), *(line.strip() for line in secret.value.split("\n"))]
        for part in parts:
            text = text.replace(part, f"<{secret.pillar}>") if len(part) >= SHORTEST else text
    return text


def looks(secrets: Sequence[Secret]) -> dict[tuple[str, str], Look]:
    """Return what is looked for in a layer, by pillar path and form."""
    return {(secret.pillar, form): Look(tuple(needles)) for secret in secrets for form, needles in secret.forms()}


def warnings(found: Mapping[Any, Sequence[str]], secrets: Sequence[Secret]) -> list[str]:
    """Return a sentence for each value and each file of a layer that holds it; ``found``: by what `looks` has."""
    sentences: list[str] = []
    for pillar, form in looks(secrets):
        paths = [conceal(f"/{path}", secrets) for path in found.get((pillar, form), ())]
        sentences += _sentences(pillar, form, paths)
    return sentences


def _sentences(pillar: str, form: str, paths: Sequence[str]) -> Iterator[str]:
    for path in paths[:_FILES]:
        yield (
            f"{path} holds the value of pillar {pillar}{form}, which the recipe marks as secret: whoever has the image "
            "has it; let a state of at_launch write it to /run"
        )
    if len(paths) > _FILES:
        yield f"... and {len(paths) - _FILES} more files hold the value of pillar {pillar}{form}"
