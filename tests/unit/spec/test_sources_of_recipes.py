"""The key ``from`` of a recipe."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.spec.model import Directory, Minion, Oci, Tarball

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
        pytest.param({"oci": "docker.io/library/debian:12"}, Oci("docker.io/library/debian:12"), id="a tag"),
        pytest.param({"oci": f"r.io/a@sha256:{SUM}"}, Oci(f"r.io/a@sha256:{SUM}"), id="a digest"),
        pytest.param({"oci": "localhost:5/a-b:1", "insecure": True}, Oci("localhost:5/a-b:1", True), id="a port"),
        pytest.param({"oci": "/srv/a.oci.tar"}, Oci("/srv/a.oci.tar"), id="an archive"),
    ],
)
def test_roots_of_others(source, found):
    recipe = read(**source)
    assert (recipe.source, recipe.minion) == (found, Minion())


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
