"""Changed layers and images are refused by name; unchanged ones are read once."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import signatures
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.host import Host
from saltext.immutable.images import layers, manifest, sign, verify
from saltext.immutable.machines import damaged_images, images, overlay
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store

WHERE_FROM = {"predicate": {"made": "of this"}}


def layer(host: Host, **files: str) -> str:
    with host.workspace() as place:
        (place / "fs/etc").mkdir(parents=True)
        for name, text in files.items():
            (place / "fs/etc" / name).write_text(text)
            (place / "fs/etc" / name).chmod(0o644)
        (place / "fs/etc/link").symlink_to("hosts")
        return layers.commit(host, place, what=f"states of {min(files)}").digest


@pytest.fixture
def settings(host) -> Settings:
    return Settings(root=host.root)


@pytest.fixture
def store():
    opened = Store.open("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def stack(host) -> list[str]:
    return [layer(host, hosts="127.0.0.1"), layer(host, motd="hello", issue="there")]


@pytest.fixture
def digest(host, stack, settings, store) -> str:
    """An image of two layers as a bake leaves it, signed."""
    order = {"recipe": "web", "layers": stack, "read_only": True, "grains": {}, "policy": {"writable": []}}
    digest = manifest.image_digest(order)
    seal = images.metadata_file(host, digest).parent / "seal/etc/immutable"
    seal.mkdir(parents=True)
    (seal / "seal.json").write_text(json.dumps({"image": digest}))
    os.link(host.layers / stack[0] / "manifest.gz", seal / f"{stack[0]}.gz")
    images.metadata_file(host, digest).write_text(json.dumps(order))
    layers.mend_links(host)
    vouch(host, settings, store, digest, order)
    return digest


def vouch(host, settings, store, digest, order) -> None:
    made = {**order, "above": verify.seal_manifest(host, digest), "proof": verify.read_proof(host, digest)}
    image = Image(digest, "web", tuple(order["layers"]), 1.0, True, {})
    signatures.sign_image(lambda name, **more: LOCAL[name](host, **more), store, settings, image, made, WHERE_FROM)


@pytest.fixture
def use(host, settings, digest) -> Callable[[], str]:
    """Ask for the image as a launch does: however lately somebody else looked, a change is found."""
    return lambda: verify.require(host, digest, sign.trusted(settings))


def flip(file: Path, byte: int = -1) -> None:
    """Change one bit; the file keeps its times, as when a disk rots."""
    info, data = file.stat(), bytearray(file.read_bytes())
    data[byte] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_an_unchanged_image_may_be_used(use, digest):
    assert use() == digest
    assert use() == digest


def of_layer(number: int, path: str) -> Callable[[Path, str, list[str]], Path]:
    return lambda root, digest, stack: root / "layers" / stack[number] / path


def of_image(path: str) -> Callable[[Path, str, list[str]], Path]:
    return lambda root, digest, stack: root / "images" / digest / path


def rewrite(data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(data(file.read_bytes())) and None


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def forged_manifest(file: Path) -> None:
    lines = gzip.decompress(file.read_bytes()).replace(b"motd", b"mood")
    file.write_bytes(gzip.compress(lines))


def other_layers(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "read_only": False}))


@pytest.mark.parametrize(
    ("where", "tamper", "said"),
    [
        pytest.param(of_layer(1, "fs/etc/motd"), flip, "/etc/motd has changed .content.", id="bit in a file"),
        pytest.param(of_layer(1, "fs/etc/motd"), truncated, "/etc/motd has .*content, size", id="truncated file"),
        pytest.param(of_layer(1, "fs/etc/motd"), Path.unlink, "/etc/motd is missing", id="file that went"),
        pytest.param(of_layer(1, "fs/etc/evil"), Path.touch, "/etc/evil was added", id="file that came"),
        pytest.param(of_layer(1, "fs/etc/motd"), lambda f: f.chmod(0o4755), "/etc/motd has changed .mode", id="mode"),
        pytest.param(
            of_layer(1, "fs/etc/motd"), lambda f: os.utime(f, (9, 9)), "/etc/motd has changed .mtime", id="time"
        ),
        pytest.param(
            of_layer(1, "fs/etc/link"),
            lambda f: (f.unlink(), f.symlink_to("x")),
            "/etc/link has changed .*target",
            id="link",
        ),
        pytest.param(of_layer(1, "manifest.gz"), lambda f: flip(f, 20), "its manifest", id="bit in a manifest"),
        pytest.param(of_layer(1, "manifest.gz"), truncated, "its manifest cannot be read", id="truncated manifest"),
        pytest.param(
            of_layer(1, "manifest.gz"), forged_manifest, "its manifest does not match the digest", id="forged manifest"
        ),
        pytest.param(of_layer(1, "manifest.gz"), Path.unlink, "its manifest cannot be read", id="manifest that went"),
    ],
)
def test_a_layer_that_was_changed_is_refused_by_name(host, use, digest, stack, where, tamper, said):
    use()
    tamper(where(host.root, digest, stack))
    wrong = rf"layer {stack[1][:12]} is damaged: .*{said}.*sets it aside and builds it again"
    with pytest.raises(verify.Damaged, match=wrong):
        use()


@pytest.mark.parametrize(
    ("where", "tamper", "said"),
    [
        pytest.param(of_image("image.json"), other_layers, "image.json does not match the digest", id="metadata"),
        pytest.param(of_image("image.json"), truncated, "image.json cannot be read", id="truncated metadata"),
        pytest.param(
            of_image("seal/etc/immutable/seal.json"), flip, "seal.json has changed .content.", id="bit in the seal"
        ),
        pytest.param(
            of_image("seal/etc/immutable/seal.json"), truncated, "seal.json has .*content, size", id="truncated seal"
        ),
        pytest.param(of_image("seal/etc/cron.d"), Path.mkdir, "cron.d was added", id="more above the layers"),
        pytest.param(of_image("proof.json"), truncated, "its signature, cannot be read", id="truncated signature"),
        pytest.param(
            of_image("proof.json"),
            rewrite(lambda data: data.replace(b"of this", b"of that")),
            "provenance",
            id="provenance",
        ),
        pytest.param(of_image("proof.json"), Path.unlink, "no signature; bake its recipe again", id="no signature"),
    ],
)
def test_an_image_that_was_changed_is_refused_by_name(host, use, digest, stack, where, tamper, said):
    tamper(where(host.root, digest, stack))
    with pytest.raises(CommandExecutionError, match=rf"image {digest[:12]} .*{said}"):
        use()


def short_links(host: Host, digest: str, stack: list[str]) -> list[Path]:
    return [host.l / name for name in (*layers.short_names(stack), overlay.seal_name(digest))]


def lead(link: Path, target: Path | str) -> None:
    link.unlink()
    link.symlink_to(target)


def swap(one: Path, other: Path) -> None:
    targets = os.readlink(one), os.readlink(other)
    lead(other, targets[0])
    lead(one, targets[1])


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        pytest.param(lambda root, below, top, seal: swap(below, top), "leads to .*, not to", id="two layers swapped"),
        pytest.param(lambda root, below, top, seal: swap(top, seal), "leads to .*, not to", id="seal swapped"),
        pytest.param(lambda root, below, top, seal: top.unlink(), "is missing", id="no link of a layer"),
        pytest.param(lambda root, below, top, seal: seal.unlink(), "is missing", id="no link of the seal"),
        pytest.param(lambda root, below, top, seal: lead(top, root / "x"), "leads to .*/x, not to", id="foreign tree"),
        pytest.param(lambda root, below, top, seal: lead(seal, root / "x"), "leads to .*/x, not to", id="foreign seal"),
        pytest.param(
            lambda root, below, top, seal: lead(top, f"{os.readlink(top)}/../x"), "x, not to", id="tree in the layer"
        ),
        pytest.param(lambda root, below, top, seal: (top.unlink(), top.mkdir()), "is missing", id="folder for a link"),
    ],
)  # fmt: skip
def test_an_image_is_used_through_its_own_links_and_a_bake_mends_them(
    host, use, digest, stack, settings, tmp_path, tamper, said
):
    use()
    links = short_links(host, digest, stack)
    before = [os.readlink(link) for link in links]
    shutil.copytree(host.layers / stack[1] / "fs", tmp_path / "x", symlinks=True)
    shutil.copytree(tmp_path / "x", host.layers / stack[1] / "x", symlinks=True)
    tamper(tmp_path, *links)
    trusted = sign.trusted(settings)
    wrong = rf"image {digest[:12]} may not be used: the link .*{said}.*image.bake"
    for way in (use, lambda: verify.image(host, digest, trusted), lambda: images.lower(host, digest)):
        with pytest.raises(verify.Damaged, match=wrong):
            way()
    assert not LOCAL["has_image"](host, digest=digest, trusted=trusted), "a bake does not call it cached"
    assert not LOCAL["has_image"](host, digest=digest)
    LOCAL["sweep"](host)
    assert [os.readlink(link) for link in links] == before
    assert use() == digest and LOCAL["has_image"](host, digest=digest, trusted=trusted)
    assert not damaged_images.list_set_aside(host), "the layers were sound"


def test_every_bit_of_a_signature_counts(host, use, digest):
    file = host.images / digest / "proof.json"
    whole = file.read_text()
    signature = json.loads(whole)["signature"]["signatures"][0]["sig"]
    for place in range(0, 85, 5):
        other = "A" if signature[place] != "A" else "B"
        file.write_text(whole.replace(signature, signature[:place] + other + signature[place + 1 :]))
        with pytest.raises(
            CommandExecutionError, match=f"image {digest[:12]} may not be used: the signature is invalid"
        ):
            use()


def test_the_signature_of_another_image_is_refused(host, use, digest, stack, settings, store):
    order = {"recipe": "shop", "layers": stack, "read_only": True, "grains": {}, "policy": {}}
    other = manifest.image_digest(order)
    (images.metadata_file(host, other).parent / "seal").mkdir(parents=True)
    images.metadata_file(host, other).write_text(json.dumps(order))
    vouch(host, settings, store, other, order)
    (host.images / digest / "proof.json").write_bytes((host.images / other / "proof.json").read_bytes())
    with pytest.raises(verify.Damaged, match="is for another image"):
        use()


def test_an_image_of_an_untrusted_key_is_refused(host, digest, tmp_path):
    stranger = Settings(root=tmp_path / "stranger")
    sign.key(stranger)
    with pytest.raises(CommandExecutionError, match=f"image {digest[:12]} may not be used: .*is not trusted"):
        verify.require(host, digest, sign.trusted(stranger))


def test_an_invalid_signature_is_never_replaced(host, digest, stack, settings, store):
    (host.images / digest / "seal/etc/immutable/seal.json").write_text("forged")
    about = images.read(host, digest)
    with pytest.raises(verify.Damaged, match="seal.json has changed"):
        vouch(host, settings, store, digest, about)


def counted(monkeypatch) -> list[Path]:
    """Return the trees that are read from now on."""
    read: list[Path] = []
    entries = manifest.entries
    monkeypatch.setattr(manifest, "entries", lambda root: (read.append(root.parent), entries(root))[1])
    return read


def test_a_layer_is_read_again_only_after_a_change(host, use, stack, digest, monkeypatch):
    read = counted(monkeypatch)
    use()
    assert {place.name for place in read} == {digest}, "the layers were read when they were baked; the seal is small"
    (host.layers / stack[1] / "fs/etc/motd").chmod(0o644)
    read.clear()
    use()
    assert {place.name for place in read} == {stack[1], digest}


def test_after_a_boot_all_is_read_again(host, use, stack, monkeypatch):
    use()
    monkeypatch.setattr(verify, "this_boot", lambda: "another")
    read = counted(monkeypatch)
    use()
    assert {place.name for place in read} > set(stack)
    read.clear()
    use()
    assert not {place.name for place in read} & set(stack), "once"


def test_who_waits_for_the_look_of_another_one_needs_none(host, use, stack, monkeypatch):
    looked: list[str] = []
    real = verify.fingerprint
    monkeypatch.setattr(verify, "fingerprint", lambda host, digest: (looked.append(digest), real(host, digest))[1])
    asked = time.time()
    use()
    assert looked == stack
    for layer in stack:
        verify._layer(host, layer, asked)
    assert looked == stack
    use()
    assert looked == stack * 2


def test_image_verify_reads_all_layers_again(host, use, digest, stack, settings):
    use()
    told = verify.image(host, digest, sign.trusted(settings))
    assert (told["layers"], told["files"]) == (2, 9)
    target = host.layers / stack[1] / "fs/etc/motd"
    flip(target)
    # As if the disk had changed it: nothing that a walk sees tells of it.
    verify.mark_verified(host, stack[1], verify.fingerprint(host, stack[1]), time.time())
    assert use() == digest
    with pytest.raises(verify.Damaged, match="/etc/motd has changed .content"):
        verify.image(host, digest, sign.trusted(settings))


def test_a_bake_takes_no_damaged_layer_as_its_parent(host, stack):
    verify.require_layers(host, stack)
    (host.layers / stack[0] / "fs/etc/hosts").write_text("6.6.6.6")
    with pytest.raises(verify.Damaged, match=f"layer {stack[0][:12]} is damaged: /etc/hosts has changed"):
        verify.require_layers(host, stack)


@pytest.mark.parametrize("tamper", [truncated, lambda file: flip(file, 30)], ids=["truncated", "bit"])
def test_the_metadata_of_a_layer_has_a_checksum(host, stack, tamper):
    layers.set_key(host, "k1", stack[0])
    tamper(host.layers / stack[0] / "layer.json")
    with pytest.raises(verify.Damaged, match=f"layer {stack[0][:12]} is damaged: layer.json cannot be read"):
        layers.find(host, "k1")


def test_layers_without_a_checksum_are_found(host, stack):
    file = host.layers / stack[0] / "layer.json"
    about = json.loads(file.read_text())
    del about["sum"]
    file.write_text(json.dumps(about))
    assert layers.load(host, stack[0]).what == "states of hosts"
