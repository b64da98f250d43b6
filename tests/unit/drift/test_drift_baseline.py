"""A machine that was adopted is compared with what was on it, as one that runs an image is with its image."""

from __future__ import annotations

import os

import pytest
from drift_root import POLICY, sealed

from saltext.immutable.drift import accounts, baseline, files, image
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.images import seal_layer

ADOPTED = {"recipe": "adopted", "read_only": False, "adopted": {"id": "pet"}}


@pytest.fixture
def noted(root):
    """Return what a root has in common with what was noted of it."""
    (root / "srv/uploads").mkdir(parents=True)
    (root / "srv/uploads/a").touch()
    policy = {**POLICY, "mutable": ["/srv/uploads"]}
    digest = baseline("adopted", policy, str(root))
    found = image.read(str(root), sealed(digest, policy=policy, **ADOPTED), digest)
    return lambda: files.differences(str(root), found, Mutable(["/srv/uploads"]), set()).found, found


def test_nothing_differs_at_first(root, noted):
    compare, found = noted
    assert compare() == {}
    assert found.names == ["this machine when it was sealed"]
    assert found.copy(accounts.PASSWD) == (root / "etc/passwd").read_bytes()


def test_a_program_that_gives_rights_is_noted_wherever_it_is(root):
    (root / "var/log/su").touch()
    (root / "var/log/su").chmod(0o4755)
    digest = baseline("adopted", POLICY, str(root))
    found = image.read(str(root), sealed(digest, **ADOPTED), digest)
    assert files.differences(str(root), found, Mutable(()), set()).found == {}


def test_what_differs_later_is_found_and_what_is_mutable_is_not(root, noted):
    compare, _ = noted
    (root / "usr/bin/tool").write_text("another tool")
    (root / "srv/uploads/b").touch()
    (root / "srv/uploads/a").unlink()
    assert list(compare()) == ["usr/bin/tool"]


def test_a_policy_that_was_changed_later_is_found(root, noted):
    digest = noted[1].digest
    with pytest.raises(image.Forged, match="policy"):
        image.read(str(root), sealed(digest, policy={**POLICY, "mutable": ["/"]}, **ADOPTED), digest)


def test_what_an_earlier_seal_noted_is_replaced(root, noted):
    (root / "usr/bin/newer").touch()
    digest = baseline("adopted", POLICY, str(root))
    place = root / "var/lib/immutable"
    assert len(os.listdir(place / os.path.relpath(seal_layer.MANIFESTS, seal_layer.FOLDER))) == 1
    assert "usr/bin/newer" in image.read(str(root), sealed(digest, **ADOPTED), digest).files
