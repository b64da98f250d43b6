"""Properties are judged by what they say, not by how busy the machine is."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from saltext.immutable.host import Host

hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=60)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host's folders; what is written to them needs no root, and tests may damage it on any file system."""
    monkeypatch.setattr("saltext.immutable.host.require_root", lambda: None)
    monkeypatch.setattr("saltext.immutable.images.verity.enable", lambda tree: "")
    found = Host(tmp_path / "immutable")
    found.prepare()
    return found
