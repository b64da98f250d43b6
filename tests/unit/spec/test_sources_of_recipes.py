"""The key ``from`` of a recipe."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.spec.model import Directory, Minion, Tarball

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
        pytest.param(
            {"directory": "/srv/root", "recipe": "base"}, "from: more than one source", id="a root and a parent"
        ),
    ],
)
def test_a_wrong_source_is_refused(source, error):
    with pytest.raises(SaltInvocationError) as err:
        read(**source)
    assert error in str(err.value)
