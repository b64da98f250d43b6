"""Find secrets in the files of a layer: pillar values that a recipe marks, and what states read from a secret store.

The values are read in the machine that bakes and searched for on the builder. They never leave this module: no job,
event, error or store holds them.
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

from saltext.immutable.builder.finish.search import OVERLAP, Pattern
from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.machines.description import Machine

MIN_LENGTH = 6
"""Characters. A shorter value is not searched for: many files contain it by chance."""
_MAX_BYTES = OVERLAP
"""Bytes of a value that are compared. The beginning of a key or a certificate is enough."""
_BASE64_LENGTH = 48
"""Characters of base64 that are compared: tools break its lines at 64 or 76."""
_LINE_LENGTH = 20
"""Characters. A line of this length identifies a value of several lines, which a file may hold indented."""
_STORE = "sdb://"
"""How the name of a value in a secret store begins."""
_FILES = 20
"""Files that are listed for one value."""
# Like `pillar.items`, which cannot be used: salt-call would return the pillar to the master's job cache, and Salt 3008
# masks every value.
_COMPILE_PILLAR = """
import json, sys, salt.client, salt.config, salt.pillar
saltenv, pillarenv = json.loads(sys.argv[1])
opts = salt.client.Caller(mopts=salt.config.minion_config("/etc/salt/minion")).sminion.opts
pillarenv = pillarenv or (saltenv if opts.get("pillarenv_from_saltenv") else opts["pillarenv"])
asked = salt.pillar.get_pillar(opts, dict(opts["grains"]), opts["id"], saltenv, pillarenv=pillarenv)
print(json.dumps(asked.compile_pillar(), default=str))
"""


@dataclass(frozen=True)
class Secret:
    """One secret value. Its repr does not show the value."""

    pillar: str
    """Its pillar path, ``db:password``, or its URI in a secret store, ``sdb://vault/password``."""
    value: str

    def __repr__(self) -> str:
        return f"Secret({self.pillar!r})"

    def forms(self) -> list[tuple[str, list[bytes]]]:
        """Return the forms that the value may have in a file: the form's name, and bytes of which any is enough."""
        plain, lines = self.value.strip(), [line.strip() for line in self.value.split("\n")]
        long = [line for line in lines if len(line) >= _LINE_LENGTH and not line.startswith("-----")]
        texts = [plain, *([max(long, key=len)] if long and len(lines) > 1 else [])]
        return [("", [text.encode()[:_MAX_BYTES] for text in texts]), (" as base64", list(_base64(plain.encode())))]


def _base64(value: bytes) -> Iterator[bytes]:
    """Yield the base64 of a value at each of the three offsets, without characters that its neighbours determine."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value)
        whole = (before + len(value)) * 8 // 6
        yield encoded[-(-before * 8 // 6) : whole][:_BASE64_LENGTH]


def read(machine: Machine, order: Mapping[str, Any]) -> list[Secret]:
    """Return the values that the recipe marks, from the pillar that its states see in the machine.

    ``order``: secrets (patterns), bake_id, saltenv, pillarenv, within (seconds). Raises CommandExecutionError where the
    pillar cannot be read.
    """
    if not order["secrets"]:
        return []
    python = ["timeout", "--kill-after=10", f"{order['within']:.0f}", f"{VENV}/bin/python", "-I", "-c", _COMPILE_PILLAR]
    done = machine.run([*python, json.dumps([order["saltenv"], order["pillarenv"]])])
    try:
        pillar = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as err:
        # Without the output, which may hold values.
        raise CommandExecutionError(
            f"secrets: the pillar of {order['bake_id']} could not be read in the machine that bakes (exit code "
            f"{done.returncode}); see salt-run pillar.show_pillar {order['bake_id']}"
        ) from err
    return list(select(pillar, order["secrets"]))


def of_stores(lines: str) -> list[Secret]:
    """Return the values that secret stores gave to states. ``lines``: as `builder.states.trace` writes them."""
    given = (json.loads(line) for line in lines.splitlines())
    return list(dict.fromkeys(secret for name, value in given for secret in select({name: value}, ["*"])))


def select(pillar: Any, globs: Sequence[str], path: tuple[str, ...] = ()) -> Iterator[Secret]:
    """Yield each text in a pillar whose path, or the beginning of it, matches one of the globs.

    A glob matches element by element: ``tls:*:key``. The URI of a value in a secret store is no secret.
    """
    if isinstance(pillar, Mapping):
        for name, value in pillar.items():
            yield from select(value, globs, (*path, str(name)))
    elif isinstance(pillar, list):
        for number, value in enumerate(pillar):
            yield from select(value, globs, (*path, str(number)))
    elif isinstance(pillar, str) and _may_be_found(pillar) and any(_matches(path, each) for each in globs):
        yield Secret(":".join(path), pillar)


def _may_be_found(value: str) -> bool:
    return len(value.strip()) >= MIN_LENGTH and not value.startswith(_STORE)


def _matches(path: Sequence[str], glob: str) -> bool:
    elements = glob.split(":")
    return len(path) >= len(elements) and all(map(fnmatchcase, path, elements))


@contextmanager
def redacted(secrets: Sequence[Secret]) -> Iterator[None]:
    """Redact the message of a CommandExecutionError that the block raises."""
    try:
        yield
    except CommandExecutionError as err:
        message = redact(str(err), secrets)
        if message == str(err):
            raise
        raise CommandExecutionError(message) from None  # the cause would show the values


def redact(text: str, secrets: Sequence[Secret]) -> str:
    """Return a text with each value, and each of its lines, replaced by its pillar path in ``<>``."""
    for secret in sorted(secrets, key=lambda each: -len(each.value)):
        parts = [secret.value.strip(), *(line.strip() for line in secret.value.split("\n"))]
        for part in parts:
            text = text.replace(part, f"<{secret.pillar}>") if len(part) >= MIN_LENGTH else text
    return text


def patterns(secrets: Sequence[Secret]) -> dict[tuple[str, str], Pattern]:
    """Return the patterns to search a layer for, by pillar path and form."""
    return {(secret.pillar, form): Pattern(tuple(needles)) for secret in secrets for form, needles in secret.forms()}


def warnings(found: Mapping[Any, Sequence[str]], secrets: Sequence[Secret]) -> list[str]:
    """Return a sentence for each value and each file that holds it.

    ``found``: the result of a search for `patterns`.
    """
    sentences: list[str] = []
    for pillar, form in patterns(secrets):
        paths = [redact(f"/{path}", secrets) for path in found.get((pillar, form), ())]
        sentences += _sentences(pillar, form, paths)
    return sentences


def _sentences(pillar: str, form: str, paths: Sequence[str]) -> Iterator[str]:
    of_store = pillar.startswith(_STORE)
    what = f"{pillar}{form}" if of_store else f"pillar {pillar}{form}"
    why = "which the states read from a secret store" if of_store else "which the recipe marks as secret"
    for path in paths[:_FILES]:
        yield (
            f"{path} holds the value of {what}, {why}, so everybody who has the image has it; let a state of "
            "at_launch write it to /run"
        )
    if len(paths) > _FILES:
        yield f"... and {len(paths) - _FILES} more files hold the value of {what}"
