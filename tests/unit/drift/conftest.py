"""A small root with a manifest of its own, to be changed in one thing at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

sys.path[:0] = [str(Path(__file__).parent)]

from drift_root import prove, sealed  # noqa: E402

from saltext.immutable.drift import files, image  # noqa: E402
from saltext.immutable.drift.files import Differences  # noqa: E402
from saltext.immutable.drift.image import Image  # noqa: E402
from saltext.immutable.drift.paths import Mutable  # noqa: E402
from saltext.immutable.images import manifest  # noqa: E402

hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=60)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with files of most kinds."""
    place = tmp_path / "root"
    for folder in ("etc", "usr/bin", "var/lib/app", "var/log"):
        (place / folder).mkdir(parents=True)
    (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (place / "usr/bin/tool").write_text("#!/bin/sh\n")
    (place / "usr/bin/tool").chmod(0o755)
    (place / "usr/bin/link").symlink_to("tool")
    (place / "var/lib/app/data").write_bytes(b"12345")
    (place / "var/log/app.log").write_bytes(b"")
    os.mkfifo(place / "var/lib/app/pipe")
    return place


@pytest.fixture
def imaged(root: Path) -> Image:
    """Return the image that the root is."""
    digest = prove(root, manifest.lines(root))
    return image.read(str(root), sealed(digest), digest)


@pytest.fixture
def compared(root: Path, imaged: Image) -> Callable[..., Differences]:
    """Return what compares the root with its image."""

    def compare(mutable: tuple[str, ...] = (), mounts: tuple[str, ...] = (), full: bool = False) -> Differences:
        return files.differences(str(root), imaged, Mutable(mutable), mounts, full)

    return compare
