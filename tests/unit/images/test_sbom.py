"""The software of an image is read from the image, and its bill of materials is always the same valid document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import rpms

from saltext.immutable.host import Host
from saltext.immutable.images import layers, manifest, sbom, software
from saltext.immutable.machines import images

STATUS = """Package: nginx
Status: install ok installed
Maintainer: Debian Nginx Maintainers <nginx@example.org>
Architecture: amd64
Version: 1.22.1-9+deb12u3
Source: nginx-src (1.22)

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: tzdata
Status: hold ok installed
Architecture: all
Version: 2025b-0+deb12u2
"""
DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nLicense: BSD-2-clause\n text\n"
RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n'
METADATA = "Metadata-Version: 2.1\nName: Py_YAML\nVersion: 6.0\nLicense: MIT\n\nReadme\n"
SITE = "opt/salt/lib/python3.11/site-packages"


def layer(host: Host, **files: str) -> str:
    with host.workspace() as place:
        (place / "fs").mkdir()
        for name, text in files.items():
            file = place / "fs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return layers.commit(host, place, what="a layer").digest


def image(host: Host, *stack: str) -> str:
    order = {"recipe": "web", "layers": list(stack), "read_only": True, "grains": {}, "policy": {}}
    digest = manifest.image_digest(order)
    images.metadata_file(host, digest).parent.mkdir()
    images.metadata_file(host, digest).write_text(json.dumps(order))
    return digest


@pytest.fixture
def digest(host: Host) -> str:
    root = layer(
        host,
        **{
            "var/lib/dpkg/status": "Package: old\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
            "usr/lib/os-release": RELEASE,
            f"{SITE}/py_yaml-6.0.dist-info/METADATA": METADATA.replace("6.0", "5.0"),
        },
    )
    upper = layer(
        host,
        **{
            "var/lib/dpkg/status": STATUS,
            "usr/share/doc/nginx/copyright": DEP5,
            "usr/share/doc/tzdata/copyright": "This database is in the public domain.\n",
            f"{SITE}/py_yaml-6.0.dist-info/METADATA": METADATA,
            f"{SITE}/notes/METADATA": METADATA,
        },
    )
    return image(host, root, upper)


def test_the_file_of_the_top_layer_is_read(host, digest):
    deb = {"type": "deb", "vendor": "debian", "distro": "debian-12"}
    told = {"arch": "amd64", "source": "nginx-src (1.22)", "by": "Debian Nginx Maintainers <nginx@example.org>"}
    assert software.software(host, digest) == [
        {**deb, **told, "name": "nginx", "version": "1.22.1-9+deb12u3", "licenses": ["BSD-2-clause"]},
        {
            **deb,
            "name": "tzdata",
            "version": "2025b-0+deb12u2",
            "arch": "all",
            "source": "tzdata",
            "by": "",
            "licenses": [],
        },
        {"type": "pypi", "name": "py-yaml", "version": "6.0", "path": f"/{SITE}", "licenses": ["MIT"]},
    ]


def test_an_empty_image_has_no_software(host):
    assert software.software(host, image(host, layer(host, empty=""))) == []


@pytest.mark.parametrize(
    ("said", "licenses"),
    [
        pytest.param("License-Expression: Apache-2.0 OR MIT", ["Apache-2.0 OR MIT"], id="expression"),
        pytest.param("License: BSD\nLicense-Expression: MIT", ["MIT"], id="the expression is the newer way"),
        pytest.param(
            "License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", ["MIT License"], id="classifier"
        ),
        pytest.param("License: Copyright 2020\n        All of the text", [], id="the whole text"),
        pytest.param("Summary: x", [], id="none"),
    ],
)
def test_the_license_of_a_distribution(said, licenses):
    [found] = software.distribution(f"Name: x\nVersion: 1\n{said}\n", "a/site-packages/x-1.dist-info/METADATA")
    assert found["licenses"] == licenses


def test_a_file_without_a_name_is_no_distribution():
    assert list(software.distribution("Name: x\n", "site-packages/x.dist-info/METADATA")) == []


def test_the_document_is_valid_and_always_the_same(host, digest):
    found = software.software(host, digest)
    told = sbom.document("web@3f2a9c1d04be", digest, 1_700_000_000.5, found)
    assert told == sbom.document("web@3f2a9c1d04be", digest, 1_700_000_000.5, reversed(found))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert told["metadata"]["component"]["version"] == digest
    components = {each["purl"]: each for each in told["components"]}
    assert sorted(components) == [
        "pkg:deb/debian/nginx@1.22.1-9%2Bdeb12u3?arch=amd64&distro=debian-12",
        "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u2?arch=all&distro=debian-12",
        "pkg:pypi/py-yaml@6.0",
    ]
    licenses = [components[url].get("licenses") for url in sorted(components)]
    assert licenses == [[{"license": {"id": "BSD-2-Clause"}}], None, [{"license": {"id": "MIT"}}]]


def test_another_image_has_another_serial_number(host, digest):
    numbers = {sbom.document("web@1", digest, 1.0, [])["serialNumber"] for digest in ("1" * 64, "2" * 64)}
    assert len(numbers) == 2


def test_the_same_distribution_in_two_folders_has_two_references():
    twins = [{"type": "pypi", "name": "x", "version": "1", "path": place, "licenses": []} for place in ("/a", "/b")]
    told = sbom.document("web@1", "1" * 64, 1.0, twins)
    assert len(told["components"]) == 2
    assert len({each["bom-ref"] for each in told["components"]}) == 2


def test_a_bake_does_not_load_the_library():
    source = Path(software.__file__).parent
    importers = [file.name for file in source.glob("*.py") if "import cyclonedx" in file.read_text()]
    importers += [file.name for file in source.glob("*.py") if "from cyclonedx" in file.read_text()]
    assert importers == ["sbom.py"]


@rpms.needs_rpm
def test_packages_of_rpm_are_in_the_bill_of_materials(host, tmp_path):
    with host.workspace() as place:
        rpms.install(rpms.build(tmp_path), place / "fs")
        (place / "fs/etc").mkdir()
        (place / "fs/etc/os-release").write_text(rpms.RELEASE)
        digest = image(host, layers.commit(host, place, what="a layer").digest)
    found = software.software(host, digest)
    named = {"type": "rpm", "name": "tiny", "version": "1:2.5-3", "arch": "noarch", "source": "tiny-2.5-3.src.rpm"}
    known = {"by": "Example Project", "vendor": "fedora", "distro": "fedora-41", "licenses": ["GPLv3+ and MIT"]}
    assert found == [{**named, **known}]
    [component] = sbom.document("web@1", digest, 1.0, found)["components"]
    assert component["purl"] == "pkg:rpm/fedora/tiny@2.5-3?arch=noarch&distro=fedora-41&epoch=1"
    assert (component["version"], component["publisher"]) == ("1:2.5-3", "Example Project")
