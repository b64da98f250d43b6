"""Salt in a bake trusts the authorities of the image and those of the builder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from saltext.immutable.builder.states.traced_salt_call import trust_builder


@pytest.mark.parametrize(
    ("own", "builder", "opts", "trusted"),
    [
        pytest.param("own", "builder", {}, ["own", "builder"], id="both"),
        pytest.param("own", "builder", None, ["own", "builder"], id="without opts"),
        pytest.param("", "builder", {}, ["builder"], id="an image without authorities"),
        pytest.param("gone", "builder", {}, ["builder"], id="a bundle that is not there"),
        pytest.param("own", "", {}, ["own"], id="a builder without authorities"),
        pytest.param("own", "gone", {}, ["own"], id="a builder's that is not there"),
        pytest.param("own", "builder", {"ca_bundle": "own"}, ["own"], id="one that the minion's config names"),
    ],
)
def test_whom_salt_trusts(tmp_path, monkeypatch, own, builder, opts, trusted):
    paths = {name: str(tmp_path / name) if name else None for name in (own, builder)}
    for name in {"own", "builder"} & set(paths):
        (tmp_path / name).write_text(name)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if paths[builder]:
        monkeypatch.setenv("SSL_CERT_FILE", paths[builder])
    http = SimpleNamespace(get_ca_bundle=lambda opts=None: paths[own])
    trust_builder(http, str(tmp_path / "both"))
    for _ in range(2):
        with open(http.get_ca_bundle(opts)) as file:
            assert file.read().split() == trusted
