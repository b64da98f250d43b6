"""A program: unpack one layer of OCI onto the layers below it, in a mount namespace that ends with it.

The layers below are mounted as an overlay whose upper directory takes the new one. So the kernel writes whiteouts, and
keeps the owners of folders and hard links to files below.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from saltext.immutable.builder.sources import program, roots
from saltext.immutable.builder.sources.unpack import unpack
from saltext.immutable.builder.sources.whiteouts import Whiteouts
from saltext.immutable.host import run
from saltext.immutable.machines import overlay

PROGRAM = "saltext.immutable.builder.sources.oci_layer"


def apply(order: dict[str, Any]) -> list[str]:
    """Unpack a layer; return warnings.

    ``order``: archive (path), sha256 (of what it holds, decompressed), workspace (its folder ``fs`` takes the layer),
    lower (names of the layers below, the root first), links (the folder in which these names are), what, and last
    (whether the root is complete, so that machines can be made of it).
    """
    workspace = Path(order["workspace"])
    tree = workspace / "fs"
    tree.mkdir(mode=0o755, exist_ok=True)
    if order["lower"]:
        tree = _stacked(workspace, order["lower"], order["links"])
    unpack(Path(order["archive"]), tree, Whiteouts(), order["sha256"])
    return roots.finish(tree, order["what"]) if order["last"] else []


def _stacked(workspace: Path, lower: list[str], links: str) -> Path:
    """Mount the layers below, with ``fs`` of the workspace for changes; return the folder."""
    tree, work = workspace / "stacked", workspace / "work"
    tree.mkdir()
    work.mkdir()
    options = overlay.options(lower, workspace / "fs", work)
    run(["mount", "--types=overlay", f"--options={options}", "overlay", tree], cwd=Path(links))
    return tree


if __name__ == "__main__":
    sys.exit(program.main(apply))
