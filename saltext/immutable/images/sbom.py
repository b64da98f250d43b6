"""The bill of materials of an image, in CycloneDX.

To import this module loads the library for it, which takes 0.5 s.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from cyclonedx.exception.factory import InvalidSpdxLicenseException
from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from saltext.immutable import __version__

_LICENSES = LicenseFactory()
_NAMESPACE = uuid.UUID("5b0d3cc4-2f2f-5e6c-9d0e-6f3f0a1f7c11")
"""Of the serial numbers of our documents."""


def document(name: str, digest: str, created: float, found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the bill of materials in CycloneDX 1.6. The same image always gives the same document.

    ``created``: epoch seconds of the image. ``found``: what `software.software` returns.
    """
    tool = Component(name="saltext-immutable", version=__version__, type=ComponentType.APPLICATION, bom_ref="tool")
    image = Component(name=name, version=digest, type=ComponentType.CONTAINER, bom_ref=f"image:{digest}")
    about = BomMetaData(component=image, timestamp=datetime.fromtimestamp(int(created), timezone.utc))
    about.tools.components.add(tool)
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, digest), metadata=about, components=list(map(_component, found)))
    bom.register_dependency(image, bom.components)
    return dict(json.loads(JsonV1Dot6(bom).output_as_string()))


def _component(each: Mapping[str, Any]) -> Component:
    qualifiers = {"arch": each["arch"], "distro": each["distro"]} if "arch" in each else None
    version = each["version"]
    if each["type"] == "rpm" and qualifiers and ":" in version:  # of Debian's the epoch is in the version
        qualifiers["epoch"], _, version = version.partition(":")
    url = PackageURL(each["type"], each.get("vendor"), each["name"], version, qualifiers)
    more = {what: each[what] for what in ("source", "path") if what in each}
    return Component(
        name=each["name"],
        version=each["version"],
        type=ComponentType.LIBRARY,
        bom_ref=f"{url}#{each.get('path', '')}".rstrip("#"),
        purl=url,
        publisher=each.get("by") or None,
        licenses=list(map(_license, each["licenses"])),
        properties=[Property(name=f"saltext-immutable:{what}", value=value) for what, value in more.items()],
    )


def _license(name: str) -> DisjunctiveLicense:
    """Return a license by its SPDX id, or else by the name that the package declares."""
    try:
        return _LICENSES.make_with_id(name)
    except InvalidSpdxLicenseException:
        return _LICENSES.make_with_name(name)
