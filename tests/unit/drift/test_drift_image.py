"""A digest proves what an image says of itself; whatever was forged is found and never raises anything else."""

from __future__ import annotations

import gzip
import json
import os
import shutil

import pytest
from drift_root import POLICY, prove, sealed

from saltext.immutable.drift import accounts, image, owners
from saltext.immutable.drift.image import Forged
from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host
from saltext.immutable.images import layers, manifest, seal_layer


@pytest.fixture
def digest(root) -> str:
    return prove(root, manifest.lines(root), grains={"roles": ["web"]})


def read(root, digest, **changes):
    return image.read(str(root), sealed(digest, **changes), digest)


def test_what_was_baked_proves_itself(root, digest):
    found = read(root, digest)
    assert found.digest == digest
    assert {"etc/passwd", "usr/bin/link"} <= found.files.keys()
    assert found.names == ["layer 0"]
    assert {"etc/immutable/image.json", "etc/salt/minion.d/zz-grains.conf"} <= found.own


def forge_order(root, **changes):
    place = root / seal_layer.DEFINITION
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


def manifest_of(root):
    [place] = (root / seal_layer.MANIFESTS).iterdir()
    return place


def forge_manifest(root):
    lines = gzip.decompress(manifest_of(root).read_bytes()).splitlines(keepends=True)
    manifest_of(root).write_bytes(gzip.compress(b"".join(line for line in lines if b"passwd" not in line)))


FORGERIES = [
    pytest.param(lambda root: (root / seal_layer.DEFINITION).unlink(), "/etc/immutable/image.json", id="no definition"),
    pytest.param(
        lambda root: (root / seal_layer.DEFINITION).write_text("[]"), "/etc/immutable/image.json", id="no mapping"
    ),
    pytest.param(
        lambda root: (root / seal_layer.DEFINITION).write_text("{"), "/etc/immutable/image.json", id="no JSON"
    ),
    pytest.param(
        lambda root: (root / seal_layer.DEFINITION).write_bytes(b"\xff"), "/etc/immutable/image.json", id="no text"
    ),
    pytest.param(lambda root: forge_order(root, layers=[]), "/etc/immutable/image.json", id="other layers"),
    pytest.param(
        lambda root: forge_order(root, policy={**POLICY, "mutable": ["/usr"]}),
        "/etc/immutable/image.json",
        id="another policy",
    ),
    pytest.param(forge_manifest, "manifest/", id="another manifest"),
    pytest.param(lambda root: manifest_of(root).unlink(), "manifest/", id="no manifest"),
    pytest.param(lambda root: manifest_of(root).write_bytes(b"x"), "manifest/", id="no gzip"),
    pytest.param(
        lambda root: os.truncate(manifest_of(root), manifest_of(root).stat().st_size - 9),
        "manifest/",
        id="half a manifest",
    ),
    pytest.param(
        lambda root: (root / "etc/salt/minion.d/zz-grains.conf").write_text('{"grains": {"roles": ["db"]}}'),
        "/etc/salt/minion.d/zz-grains.conf",
        id="other grains",
    ),
    pytest.param(
        lambda root: (root / "etc/salt/minion.d/zz-grains.conf").unlink(),
        "/etc/salt/minion.d/zz-grains.conf",
        id="no grains",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("forge", "path"), FORGERIES)
def test_a_forgery_is_found_where_it_is(root, digest, forge, path):
    forge(root)
    with pytest.raises(Forged) as raised:
        read(root, digest)
    assert path in raised.value.args[0] and raised.value.args[1]


@pytest.mark.parametrize(
    "changes",
    [{"image": "f" * 64}, {"recipe": "db"}, {"read_only": False}, {"policy": {**POLICY, "mutable": ["/"]}}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_seal_that_says_something_else_is_found(root, digest, changes):
    with pytest.raises(Forged, match=next(iter(changes))) as raised:
        image.read(str(root), sealed(**{"digest": digest, **changes}), digest)
    assert raised.value.args[0] == SEAL_PATH


def test_an_image_that_agrees_with_itself_is_not_the_one_that_the_master_knows(root, digest):
    forged = prove(root, [line for line in manifest.lines(root) if "usr/bin/tool" not in line])
    assert read(root, forged)
    with pytest.raises(Forged, match=f"{forged[:12]}.*{digest[:12]}"):
        image.read(str(root), sealed(forged), digest)


def test_a_proof_of_damaged_content_with_a_right_hash_raises_nothing_else(root):
    digest = prove(root, ['{"path": 5}\n'])
    with pytest.raises(Forged, match="damaged"):
        read(root, digest)


def test_names_of_layers_prove_nothing_and_need_not_be_there(root, digest):
    (root / seal_layer.NAMES).write_text("nonsense")
    assert read(root, digest).names == [json.loads((root / seal_layer.DEFINITION).read_text())["layers"][0][:12]]


# Copies and owners


def copy_of(root, path: str) -> None:
    place = root / seal_layer.REFERENCE / path
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / path, place)


def test_the_images_own_copy_of_a_file_is_believed_when_its_manifest_has_its_hash(root, digest):
    copy_of(root, "etc/passwd")
    found = read(root, digest)
    (root / "etc/passwd").write_text("changed")
    assert found.copy("etc/passwd") == b"root:x:0:0:root:/root:/bin/sh\n"
    (root / seal_layer.REFERENCE / "etc/passwd").write_text("forged")
    assert found.copy("etc/passwd") is None
    assert found.copy("etc/shadow") is None


def test_files_belong_to_the_package_whose_list_names_them(root):
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / "tools:amd64.list").write_text("/.\n/bin/tool\n/etc/passwd\n")
    digest = prove(root, manifest.lines(root))
    found = owners.owners(str(root), read(root, digest), ["usr/bin/tool", "etc/passwd", "etc/new"])
    assert found == {"usr/bin/tool": "tools", "etc/passwd": "tools"}
    (info / "tools:amd64.list").write_text("/etc/new\n")
    assert owners.owners(str(root), read(root, digest), ["etc/new"]) == {}


# What a bake puts into an image


@pytest.fixture
def host(tmp_path, monkeypatch) -> Host:
    monkeypatch.setattr("saltext.immutable.host.require_root", lambda: None)
    found = Host(tmp_path / "host")
    found.prepare()
    return found


def test_a_bake_writes_a_proof_that_a_machine_can_read(host, root, tmp_path):
    (root / "etc/shadow").write_text("root:*:19000::::::\n")
    (root / "etc").chmod(0o751)
    with host.workspace() as place:
        shutil.copytree(root, place / "fs", symlinks=True, ignore=shutil.ignore_patterns("pipe"))
        layer = layers.commit(host, place, what="states of web")
    machine, above = tmp_path / "machine", tmp_path / "above"
    shutil.copytree(host.layers / layer.digest / "fs", machine, symlinks=True)
    order = {"recipe": "web", "layers": [layer.digest], "read_only": True, "grains": {"a": 1}, "policy": POLICY}
    for path, text in seal_layer.derived_files(order).items():
        (above / path.lstrip("/")).parent.mkdir(parents=True)
        (above / path.lstrip("/")).write_text(text)
    seal_layer.add_manifests(host, above, order)
    seal_layer.copy_folder_metadata(host, above, order["layers"])
    assert (above / "etc").stat().st_mode & 0o777 == 0o751, "or the folder below would be hidden with its mode"
    assert (above / seal_layer.MANIFESTS / f"{layer.digest}.gz").stat().st_nlink == 2
    assert (above / seal_layer.REFERENCE / "etc/shadow").stat().st_mode & 0o777 == 0o600
    shutil.copytree(above, machine, dirs_exist_ok=True)
    digest = manifest.image_digest(order)
    found = read(machine, digest)
    assert found.names == ["states of web"]
    assert found.copy(accounts.SHADOW) == (root / "etc/shadow").read_bytes()


def test_a_folder_that_is_opaque_below_is_not_made_opaque_above(host, root, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("trusted attributes need root")
    os.setxattr(root / "etc", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "etc", "user.colour", b"teal")
    with host.workspace() as place:
        root.rename(place / "fs")
        layer = layers.commit(host, place, what="states of web")
    (tmp_path / "above/etc").mkdir(parents=True)
    seal_layer.copy_folder_metadata(host, tmp_path / "above", [layer.digest])
    assert os.listxattr(tmp_path / "above/etc") == ["user.colour"]
