"""Build the wheel of this pack for images. A checkout and an installed wheel give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from saltext.immutable import __version__

DISTRIBUTION = "saltext-immutable"
# Folders of our own package, and those that setup.cfg maps into it from the top of the checkout.
_MAPPED = ("grains", "modules", "runners", "states")
_WHEEL = "Wheel-Version: 1.0\nGenerator: saltext-immutable\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(folder: Path) -> Path:
    """Write the wheel of the running version into ``folder`` and return its path."""
    file = folder / f"saltext_immutable-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _contents().items():
            archive.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's default time gives the same bytes each time
    return file


def fingerprint() -> str:
    """Return a hash of the content of the wheel."""
    contents = _contents()
    return hashlib.sha256(contents[_info("RECORD")]).hexdigest()


def folders() -> list[Path]:
    """Return the folders from which the wheel takes its files."""
    packages = ("saltext.immutable", *(f"saltext.immutable.{name}" for name in _MAPPED))
    specs = (find_spec(package) for package in packages)
    return [Path(path) for spec in specs if spec for path in spec.submodule_search_locations or ()]


def _info(name: str) -> str:
    return f"saltext_immutable-{__version__}.dist-info/{name}"


def _contents() -> dict[str, bytes]:
    files = dict(_sources())
    metadata = distribution(DISTRIBUTION)
    # A checkout that comes first on the path is found by its egg-info, where the file is called PKG-INFO.
    files[_info("METADATA")] = (metadata.read_text("METADATA") or metadata.read_text("PKG-INFO") or "").encode()
    files[_info("entry_points.txt")] = (metadata.read_text("entry_points.txt") or "").encode()
    files[_info("WHEEL")] = _WHEEL.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    return {**files, _info("RECORD"): f"{record}{_info('RECORD')},,\n".encode()}


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _sources() -> Iterator[tuple[str, bytes]]:
    yield from _folder("saltext.immutable", "saltext/immutable", "**/*")
    for name in _MAPPED:
        yield from _folder(f"saltext.immutable.{name}", f"saltext/immutable/{name}", "*")


def _folder(package: str, target: str, pattern: str) -> Iterator[tuple[str, bytes]]:
    spec = find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(root).glob(pattern)):
            inner = file.relative_to(root)
            if file.is_file() and "__pycache__" not in inner.parts and inner.parts[0] not in _MAPPED:
                yield f"{target}/{inner}", file.read_bytes()
