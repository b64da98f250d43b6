"""A tiny package of rpm, and roots in which it is installed: no distribution of the RPM family is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SPEC = """\
Name: tiny
Epoch: 1
Version: 2.5
Release: 3
Summary: A tiny package
License: GPLv3+ and MIT
Vendor: Example Project
BuildArch: noarch
%description
Tiny.
%install
for file in bin/tiny share/doc/tiny/README share/doc/tiny/LICENSE share/man/man1/tiny.1 share/locale/de/tiny.mo; do
    mkdir -p $(dirname %{buildroot}/usr/$file)
    echo $file > %{buildroot}/usr/$file
done
%files
/usr/bin/tiny
/usr/share/doc/tiny
/usr/share/man/man1/tiny.1
/usr/share/locale/de/tiny.mo
"""
RELEASE = 'PRETTY_NAME="Fedora Linux 41"\nID=fedora\nVERSION_ID=41\n'
needs_rpm = pytest.mark.skipif(not shutil.which("rpmbuild"), reason="needs rpm and rpmbuild")


def build(folder: Path) -> Path:
    """Build the package in a folder; return its file."""
    (folder / "tiny.spec").write_text(SPEC)
    plain = ["--define", f"_topdir {folder}", "--define", "__os_install_post %{nil}"]
    _run("rpmbuild", "-bb", "--quiet", *plain, str(folder / "tiny.spec"))
    return folder / "RPMS/noarch/tiny-2.5-3.noarch.rpm"


def install(package: Path, root: Path, database: str = "/usr/lib/sysimage/rpm") -> None:
    """Install a package in a root, as its first one."""
    root.mkdir(exist_ok=True)
    _run("rpm", f"--root={root}", f"--dbpath={database}", "--nodeps", "--noscripts", "--install", str(package))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
