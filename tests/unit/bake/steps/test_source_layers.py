"""What the lowest layer of a recipe is ordered as, and what its key is made from."""

from __future__ import annotations

from saltext.immutable.bake.keys import layer_key
from saltext.immutable.bake.steps import source
from saltext.immutable.spec.origins import Directory, Disk, Oci, Parent, Tarball


def builder_with(**answers):
    return lambda name, **kwargs: answers[name]


def test_only_content_is_in_the_key():
    [by_path] = source.roots(Tarball("/srv/a.tar"), builder_with(root_content="1" * 64))
    [by_sum] = source.roots(Tarball("https://example.com/b.tar", "1" * 64), builder_with())
    [other] = source.roots(Directory("/srv/root"), builder_with(root_content="2" * 64))
    assert layer_key.key(by_path.inputs) == layer_key.key(by_sum.inputs) != layer_key.key(other.inputs)
    assert by_sum.order == {
        "tarball": "https://example.com/b.tar",
        "sha256": "1" * 64,
        "what": "tarball b.tar",
    }
    assert source.roots(Parent("base"), builder_with()) == []


def test_the_partition_of_a_disk_is_in_its_key():
    disks = [Disk("/srv/a.raw"), Disk("https://example.com/b.raw", "1" * 64), Disk("/srv/a.raw", None, 2)]
    by_path, by_sum, other = (source.roots(disk, builder_with(root_content="1" * 64))[0] for disk in disks)
    assert layer_key.key(by_path.inputs) == layer_key.key(by_sum.inputs) != layer_key.key(other.inputs)
    assert other.order == {"disk": "/srv/a.raw", "sha256": "1" * 64, "what": "disk /srv/a.raw", "partition": 2}


def oci(reference: str, *layers: str) -> list[source.Root]:
    answer = {"image": f"sha256:{reference}", "layers": list(layers)}
    return source.roots(Oci(reference), builder_with(oci_content=answer))


def test_layers_of_an_oci_image_are_layers_which_images_share():
    base, site = oci("r.io/base:1", "a", "b"), oci("r.io/site:1", "a", "b", "c")
    keys = [[layer_key.key(one.inputs) for one in roots] for roots in (base, site, oci("r.io/other:2", "a", "b"))]
    assert keys[0] == keys[2], "its name is not in the key"
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1], "the last layer of an image is made a root"
    assert [one.order["what"] for one in base] == [f"oci r.io/base:1, layer {number} of 2" for number in (1, 2)]
    assert [one.origin for one in base] == [{"image": "sha256:r.io/base:1"}] * 2
