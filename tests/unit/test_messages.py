"""What the store, the leases and the builder say when something is wrong: each message has a cause, and what to do.

``docs/messages.md`` has them all. MESSAGES=write writes its table again: read it as a diff.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "saltext/immutable"
PAGE = ROOT / "docs/messages.md"
WHOLE = ("store", "builder", "minions", "machines")
"""Folders whose files must all be in a part."""
PARTS = {
    "Store, leases and locks": ("store/*.py", "bake/locks.py"),
    "Builder and host": ("host.py", "rpm.py", "worker.py", "builder/*.py", *(f"builder/{name}/*.py" for name in (
        "sources", "states", "states/handlers", "states/watch", "finish", "image_tests", "vm"
    ))),
    "Exports": ("builder/export/*.py",),
    "Machines": ("machines/*.py",),
    "Minions, seen from the master": ("minions/*.py",),
    "Images, layers and signatures": ("images/layers.py", "images/sign.py", "images/verify.py"),
}  # fmt: skip
HEAD, BEGIN = "| it says | what to do |\n|---|---|\n", "<!-- the table: MESSAGES=write -->"
INNER = {
    *("Refused", "ValueError", "AttributeError", "OSError", "PermissionError", "ReadError"),
    *("KeyboardInterrupt", "LaunchFailed", "SaltRenderError", "_NoKernel"),
}
"""Errors that no operator meets: others put them into their own messages."""
COMPOSED = {
    "minion_id: …": "the reader of minion ids says what to write",
    "…: … (…) cannot be mounted: …": "the error of the mount says what to do",
    "…: …: …": "a function failed on a minion, and says itself what to do",
    "…; promote another: salt-run image.promote …@... channel=…": "the revocation says what is wrong",
    "…; take another: salt-run image.list … names them": "the revocation says what is wrong",
    "image … may not be used: …": "the signature says what is wrong, and what to do",
    "… (the signature covers … and the files beside it)": "becomes what a damaged image says",
    "…: immutable.status returned …": "a note on the health of a machine",
    "its launch phase has not ended": "a note on the health of a machine",
    "…: no answer within … s": "a note on the health of a machine",
    "… answers …": "a note on the health of a machine",
}
"""Messages of which one part comes from elsewhere, and what that says."""
ELSEWHERE = {
    "CommandExecutionError(message)": "the message of another error, without the secrets in it",
    "CommandExecutionError(said['error'])": "the message of an error in a process of ours",
    "CommandExecutionError(failures.describe(result, where, unanswered(trace(machine))))": (
        "begins with how many states failed; correct them, and bake again"
    ),
    "NoAnswer(f'{url}: {err}')": "a note on the health of a machine",
}
"""Messages that are no text here, and what they are."""
HELD = {
    "unusable": "made by _locked or _unusable",
    "unproven": "made above, as an Outdated or Unproven",
    "answer": "an error among the answers to several questions, made by _result",
    "status": "an error among the answers to several questions, made by _result",
}
"""Names of errors that were made before they are raised."""
MEND = re.compile(r"(?:(?:or )?if [^,]+, |when [^,]+, |in [^,]+, )?`?(?:(there are: |the next roll )|([\w-]+))")
_VERBS = """
    add bake build change check chmod chown copy correct create do export find fix flatten free give increase install
    leave let look make mount name open promote remove repeat replace roll run salt-run see set start synchronize
    take use wait write
"""
VERBS = set(_VERBS.split())
"""What an advice begins with."""


def errors() -> set[str]:
    """Return the names of classes whose message an operator may meet: Salt's, and all that derive from them."""
    found = {"CommandExecutionError", "SaltInvocationError", "SystemExit"}
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found - INNER


ERRORS = errors()


class Module:
    """The errors that a module makes, wherever it does: raised, returned or assigned."""

    def __init__(self, path: Path) -> None:
        self.nodes = list(ast.walk(tree := ast.parse(path.read_text())))
        self.texts = {
            ast.unparse(node.targets[0]): node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and type(node.value.value) is str
        }
        """The constants of the module that are texts."""
        calls = [node for node in self.nodes if isinstance(node, ast.Call) and node.args]
        self.made = {ast.unparse(node): self.text(node.args[0]) for node in calls if _name(node) in ERRORS}
        """Source of each error that is made, and the text of its message."""
        self.factories = {
            node.name
            for node in self.nodes
            if isinstance(node, ast.FunctionDef) and node.returns and _name(node.returns) in ERRORS
        }
        raised = [node.exc for node in self.nodes if isinstance(node, ast.Raise) and node.exc]
        self.raised = [each for one in raised for each in (one.values if isinstance(one, ast.BoolOp) else [one])]

    def messages(self) -> Iterator[str]:
        """Yield the first line of each message; what is filled in is an ellipsis."""
        for source, text in self.made.items():
            message = text.partition("\n")[0].removesuffix(":")
            if source not in ELSEWHERE and message not in COMPOSED:
                yield message

    def text(self, node: ast.expr) -> str:
        """Return a text; what is not known here is an ellipsis."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self.text, node.values))
        if isinstance(node, ast.FormattedValue):
            return self.texts.get(ast.unparse(node.value), "…")
        if isinstance(node, ast.BinOp):
            return self.text(node.left) + self.text(node.right)
        return "…"


def _name(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def files(patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in LIBRARY.glob(pattern))


MODULES = {path: Module(path) for patterns in PARTS.values() for path in files(patterns)}
FACTORIES = {name for module in MODULES.values() for name in module.factories}
"""Functions that make an error and return it."""


def parts(message: str) -> tuple[str, str]:
    """Return the cause of a message and, after the last semicolon, what to do."""
    cause, _, advice = message.rpartition("; ")
    return (cause, advice) if cause else (message, "")


def wrong(cause: str, advice: str) -> str | None:
    """Return what is wrong with a message, None if it says what is wrong and what to do."""
    if len(re.findall(r"[A-Za-z]{2,}", cause)) < 2:
        return f"{cause!r} does not say what is wrong"
    mend = MEND.match(advice)
    if not mend or not (mend[1] or mend[2].lower() in VERBS):
        return f"{cause!r} does not say what to do, but {advice!r}: '...; do this'"
    return None


TABLES = {
    title: sorted({parts(message) for path in files(patterns) for message in MODULES[path].messages()})
    for title, patterns in PARTS.items()
}


def page() -> str:
    blocks = []
    for title, rows in TABLES.items():
        lines = "".join(f"| {_cell(cause)} | {_cell(advice)} |\n" for cause, advice in rows)
        blocks.append(f"## {title}\n\n{HEAD}{lines}")
    return PAGE.read_text().partition(BEGIN)[0] + BEGIN + "\n\n" + "\n".join(blocks)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


@pytest.mark.parametrize(("title", "row"), [(title, row) for title, rows in TABLES.items() for row in rows])
def test_each_message_says_what_is_wrong_and_what_to_do(title: str, row: tuple[str, str]) -> None:
    assert wrong(*row) is None


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(("machine … did not start", "its console"), id="no advice"),
        pytest.param(("… leaves this to the boot", "but … is not enabled in the image"), id="more of the cause"),
        pytest.param(("… does not answer", ""), id="nothing"),
        pytest.param(("…", "take it out of the states of this recipe"), id="no cause"),
    ],
)
def test_a_message_that_says_too_little_is_found(row: tuple[str, str]) -> None:
    assert wrong(*row)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_each_error_that_is_raised_is_one_whose_message_is_known(path: Path) -> None:
    known = {*ERRORS, *INNER, *FACTORIES}
    unknown = [ast.unparse(one) for one in MODULES[path].raised if _name(one) not in known]
    assert set(unknown) <= set(HELD), "write the message where the error is made, or name it in HELD"


def test_no_folder_is_left_out_and_no_exception_is_needless() -> None:
    assert {path for name in WHOLE for path in (LIBRARY / name).rglob("*.py")} <= set(MODULES)
    made = {source: text for module in MODULES.values() for source, text in module.made.items()}
    assert set(ELSEWHERE) <= set(made)
    assert set(COMPOSED) <= {text.partition("\n")[0] for text in made.values()}
    assert set(HELD) <= {ast.unparse(one) for module in MODULES.values() for one in module.raised}


def test_the_documentation_has_each_message() -> None:
    if os.environ.get("MESSAGES") == "write":
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "MESSAGES=write writes the table again"


def test_messages_are_found() -> None:
    assert min(map(len, TABLES.values())) > 5
    locks = [cause for cause, _ in TABLES["Store, leases and locks"]]
    assert {"… is held by …", "the store cannot be used: …", "the store … has been locked by … for … s"} <= {*locks}
