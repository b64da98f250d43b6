"""The key ``from`` of a recipe."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.spec.model import Minion
from saltext.immutable.spec.origins import Directory, Disk, Oci, ParentImage, Tarball

SUM = "0123456789abcdef" * 4


def read(**source):
    return spec.definitions({"immutable": {"recipes": {"base": {"from": source}}}}).recipes["base"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param({"tarball": "/srv/root.tar.zst"}, Tarball("/srv/root.tar.zst"), id="a file"),
        pytest.param({"tarball": "/srv/r.tar", "sha256": SUM}, Tarball("/srv/r.tar", SUM), id="a file and its sum"),
        pytest.param({"tarball": "https://x/r.tar", "sha256": SUM}, Tarball("https://x/r.tar", SUM), id="a URL"),
        pytest.param({"directory": "/srv/root"}, Directory("/srv/root"), id="a directory"),
        pytest.param({"disk": "/srv/a.qcow2"}, Disk("/srv/a.qcow2"), id="a disk"),
        pytest.param({"disk": "https://x/a.raw", "sha256": SUM}, Disk("https://x/a.raw", SUM), id="the URL of a disk"),
        pytest.param({"disk": "/srv/a.vmdk", "partition": 3}, Disk("/srv/a.vmdk", None, 3), id="a partition"),
        pytest.param({"oci": "docker.io/library/debian:12"}, Oci("docker.io/library/debian:12"), id="a tag"),
        pytest.param({"oci": f"r.io/a@sha256:{SUM}"}, Oci(f"r.io/a@sha256:{SUM}"), id="a digest"),
        pytest.param({"oci": "localhost:5/a-b:1", "insecure": True}, Oci("localhost:5/a-b:1", True), id="a port"),
        pytest.param({"oci": "/srv/a.oci.tar"}, Oci("/srv/a.oci.tar"), id="an archive"),
    ],
)
def test_roots_of_others(source, found):
    recipe = read(**source)
    assert (recipe.source, recipe.minion) == (found, Minion())


@pytest.mark.parametrize("reference", ["web:stable", "web@3f2a9c", f"web@{SUM}", "3f2a9c1d04be", SUM])
def test_an_image_is_a_parent_which_has_salt_already(reference):
    recipe = read(image=reference)
    assert (recipe.source, recipe.minion) == (ParentImage(reference), None)


@pytest.mark.parametrize(
    ("parents", "error"),
    [
        pytest.param({"web": {"image": "web:stable"}}, "web:from:image: its parents form a circle, web", id="own"),
        pytest.param(
            {"web": {"recipe": "base"}, "base": {"image": "web:candidate"}},
            "base:from:image: its parents form a circle, base -> web -> base; give one of them another source (one",
            id="by another recipe",
        ),
        pytest.param({"web": {"image": "web@3f2a9c"}}, None, id="one image of its own, which never moves"),
        pytest.param({"web": {"image": "gone:stable"}}, None, id="of a recipe that is gone: the store knows its image"),
    ],
)
def test_no_bake_may_move_its_own_parent(parents, error):
    recipes = {name: {"from": source} for name, source in parents.items()}
    if error is None:
        assert set(spec.definitions({"immutable": {"recipes": recipes}}).recipes) == set(parents)
        return
    with pytest.raises(SaltInvocationError) as err:
        spec.definitions({"immutable": {"recipes": recipes}})
    assert f"immutable:recipes:{error}" in str(err.value)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param({"tarball": "https://x/r.tar"}, "from: sha256 is missing: a URL may return", id="URL without sum"),
        pytest.param({"tarball": "r.tar"}, "from:tarball: 'r.tar' is not a tar archive; write", id="relative"),
        pytest.param({"tarball": "/srv/../etc/r.tar"}, "from:tarball:", id="a path that goes up"),
        pytest.param({"tarball": "ftp://x/r.tar", "sha256": SUM}, "from:tarball:", id="another protocol"),
        pytest.param({"tarball": "https://me:secret@x/r.tar", "sha256": SUM}, "from:tarball:", id="a password"),
        pytest.param(
            {"tarball": "/r.tar", "sha256": "12"}, "from:sha256: '12' is not a sha256; write", id="half a sum"
        ),
        pytest.param({"tarball": "/r.tar", "sha256": SUM.upper()}, "from:sha256:", id="a sum in capitals"),
        pytest.param({"tarball": "/r.tar", "packages": ["bash"]}, "from:packages: no such key", id="packages of a tar"),
        pytest.param({"directory": "/srv/root", "sha256": SUM}, "from:sha256: no such key", id="a sum of a directory"),
        pytest.param({"directory": "root"}, "from:directory: 'root' is not an absolute path; write", id="relative"),
        pytest.param({"directory": "/srv/root", "tarball": "/r.tar"}, "from: more than one source", id="two of them"),
        pytest.param({"disk": "https://x/a.raw"}, "from: sha256 is missing", id="URL of a disk without sum"),
        pytest.param({"disk": "a.qcow2"}, "from:disk: 'a.qcow2' is not the disk of a system", id="relative disk"),
        pytest.param({"disk": "/a.raw", "partition": 0}, "from:partition: must be a whole number", id="partition"),
        pytest.param({"tarball": "/a.tar", "partition": 1}, "from:partition: no such key", id="partition of a tar"),
        pytest.param({"image": "web"}, "from:image: 'web' is not a baked image; write 'base:stable'", id="a recipe"),
        pytest.param({"image": "web@3f2"}, "from:image: 'web@3f2' is not a baked", id="too few digits"),
        pytest.param({"image": "web:stable", "sha256": SUM}, "from:sha256: no such key", id="a sum of an image"),
        pytest.param({"oci": "debian:bookworm"}, "is not an image with its registry and a tag or a", id="no registry"),
        pytest.param({"oci": "docker.io/library/debian"}, "from:oci: 'docker.io/library/debian' is not", id="no tag"),
        pytest.param({"oci": "me:secret@docker.io/a:1"}, "from:oci:", id="a password in its name"),
        pytest.param({"oci": "--help.io/a:1"}, "from:oci:", id="an option"),
        pytest.param({"oci": "docker://docker.io/a:1"}, "from:oci:", id="a transport of skopeo"),
        pytest.param({"oci": "/srv/a:b.tar"}, "is not a path without a colon", id="a path with a colon"),
        pytest.param({"oci": "r.io/a:1", "insecure": "maybe"}, "from:insecure:", id="no flag"),
        pytest.param(
            {"directory": "/srv/root", "recipe": "base"}, "from: more than one source", id="a root and a parent"
        ),
    ],
)
def test_a_wrong_source_is_refused(source, error):
    with pytest.raises(SaltInvocationError) as err:
        read(**source)
    assert error in str(err.value)
