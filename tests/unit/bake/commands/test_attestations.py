"""What is asked about an image is answered from what was proven; an image of earlier days can be signed by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake.commands.attestations import Evidence
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.images import layers, manifest, sign
from saltext.immutable.images.verify import Damaged
from saltext.immutable.machines import images
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store

STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"


@pytest.fixture
def known(host):
    store = Store.open("sqlite://")
    yield Evidence(Settings(root=host.root), store, lambda name, **more: LOCAL[name](host, **more))
    store.close()


def unsigned(host, known, package: str) -> Image:
    """Return an image of the time before there were signatures."""
    with host.workspace() as place:
        status = place / "fs/var/lib/dpkg/status"
        status.parent.mkdir(parents=True)
        status.write_text(STATUS.format(package))
        layer = layers.commit(host, place, what="debian")
    order = {"recipe": "web", "layers": [layer.digest], "read_only": True, "grains": {}, "policy": {}}
    digest = manifest.image_digest(order)
    seal = images.metadata_file(host, digest).parent / "seal/etc/immutable/seal.json"
    seal.parent.mkdir(parents=True)
    seal.write_text(json.dumps({"image": digest}))
    images.metadata_file(host, digest).write_text(json.dumps(order))
    layers.mend_links(host)
    image = Image(digest, "web", (layer.digest,), 1_700_000_000.0, True, {})
    known.store.add_image(image)
    return image


@pytest.fixture
def image(host, known) -> Image:
    return unsigned(host, known, "bash")


@pytest.mark.parametrize("ask", ["verify", "sbom"])
def test_nothing_is_told_of_what_nobody_signed(known, image, ask):
    with pytest.raises(CommandExecutionError, match=f"no signature; .*salt-run image.sign {image.digest[:12]}"):
        getattr(known, ask)(image.name)


def test_signed_by_hand_it_may_be_used(known, image):
    told = known.sign(image.name)
    assert (told["image"], told["signed"], told["verified"], told["layers"]) == (image.name, True, True, 1)
    assert known.verify(image.name)["verified"]
    [component] = known.sbom(image.name)["components"]
    assert component["name"] == "bash"
    with pytest.raises(CommandExecutionError, match="the image was signed by hand"):
        known.provenance(image.name)


def test_it_is_signed_once(known, image):
    known.sign(image.name)
    with pytest.raises(CommandExecutionError, match="is signed already"):
        known.sign(image.name)


def test_a_signature_makes_no_damaged_layer_good(host, known, image):
    (host.layers / image.layers[0] / "fs/var/lib/dpkg/status").write_text(STATUS.format("evil"))
    with pytest.raises(Damaged, match="/var/lib/dpkg/status has changed"):
        known.sign(image.name)


def test_the_public_half_of_the_key_is_there_for_other_masters(host, known, image, tmp_path):
    known.sign(image.name)
    public = sign.public_file(known.settings)
    other = Evidence(Settings(root=tmp_path / "other", trusted_keys=(public,)), known.store, known.builder)
    assert other.verify(image.name)["verified"]
    stranger = Evidence(Settings(root=tmp_path / "other"), known.store, known.builder)
    with pytest.raises(CommandExecutionError, match="is not trusted by this master"):
        stranger.verify(image.name)


def test_how_two_images_differ_inside(host, known, image):
    other: Any = unsigned(host, known, "dash-and-more")
    told = known.inside(image, other)
    assert told["files"]["changed"]["all"] == {"/var/lib/dpkg/status": len("dash-and-more") - len("bash")}
    assert told["services"] == {}
