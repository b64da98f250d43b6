"""The kernel of an image: its files, and the modules that its initial RAM disk needs besides its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

_ADD = "add it to the packages of the recipe (from: {debian: ..., packages: [...]}) or to its states, and bake again"
_VMLINUZ = re.compile(r"boot/vmlinuz-(?P<version>.+)")
REQUIRED = {
    _VMLINUZ.pattern: ("no kernel", "linux-image-cloud-amd64 (virtual machines) or linux-image-amd64"),
    r"boot/initrd\.img-.+": ("no initial RAM disk of its kernel", "initramfs-tools"),
}
"""Files of a kernel, by path -> (what is missing without one, the Debian package that has it)."""


@dataclass(frozen=True)
class Kernel:
    """The newest kernel of an image."""

    version: str
    """``6.1.0-18-cloud-amd64``"""
    vmlinuz: Path
    initrd: Path


def require(name: str, files: Iterable[str], needed: Mapping[str, tuple[str, str]]) -> None:
    """Raise CommandExecutionError where an image has no file for one of the patterns ``needed``, see REQUIRED."""
    paths = list(files)
    for pattern, (missing, package) in needed.items():
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise CommandExecutionError(f"{name} cannot boot, it has {missing}: {package}; {_ADD}")


def find(name: str, files: Mapping[str, Path]) -> Kernel:
    """Return the newest kernel among the files of an image. Raises CommandExecutionError where there is none.

    ``name``: of the image, for messages. ``files``: path in the image -> the file in its layer.
    """
    require(name, files, REQUIRED)
    versions = [found["version"] for path in files if (found := _VMLINUZ.fullmatch(path))]
    version = max((each for each in versions if f"boot/initrd.img-{each}" in files), key=_sort_key, default="")
    if not version:
        raise CommandExecutionError(
            f"{name} cannot boot, it has no /boot/initrd.img-{versions[0]}: initramfs-tools; {_ADD}"
        )
    return Kernel(version, files[f"boot/vmlinuz-{version}"], files[f"boot/initrd.img-{version}"])


def _sort_key(version: str) -> list[tuple[int, str]]:
    """Return a key that sorts versions of kernels: 6.10 is newer than 6.9."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.findall(r"\d+|\D+", version)]


def modules(name: str, version: str, files: Mapping[str, Path], wanted: Collection[str]) -> dict[str, bytes]:
    """Return kernel modules, those that they depend on, and the indexes for modprobe: path below /lib/modules -> bytes.

    ``wanted``: names of modules; one that is part of the kernel is left out.
    """
    for folder in (f"usr/lib/modules/{version}", f"lib/modules/{version}"):
        if f"{folder}/modules.dep.bin" in files and f"{folder}/modules.dep" in files:
            needed = _dependencies(files[f"{folder}/modules.dep"].read_text(), wanted)
            paths = ["modules.dep.bin", *(path for path in ("modules.builtin.bin",) if f"{folder}/{path}" in files)]
            if missing := [path for path in needed if f"{folder}/{path}" not in files]:
                raise CommandExecutionError(
                    f"{name} cannot boot, it has no /{folder}/{missing[0]}, which its modules.dep lists; let no state "
                    "remove it, or run depmod after that, and bake again"
                )
            return {f"{version}/{path}": files[f"{folder}/{path}"].read_bytes() for path in [*paths, *needed]}
    raise CommandExecutionError(
        f"{name} cannot boot, it has no modules of its kernel {version}: linux-image-{version}; {_ADD}"
    )


def _dependencies(modules_dep: str, wanted: Collection[str]) -> list[str]:
    """Return the files of modules and of those that they need."""
    found: dict[str, None] = {}
    for line in modules_dep.splitlines():
        path, _, others = line.partition(":")
        if re.sub(r"\.ko(\.\w+)?$", "", path.rpartition("/")[2]).replace("-", "_") in wanted:
            found |= dict.fromkeys([path, *others.split()])
    return list(found)
