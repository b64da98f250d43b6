"""How this host reaches mirrors and package indexes: proxies, CA bundle, apt and pip configuration.

A bake uses the same configuration; no image keeps it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from threading import Lock, Thread

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import run
from saltext.immutable.machines import network

CA_BUNDLE = "/run/immutable/ca-certificates.crt"
"""Path of the host's CA bundle inside a machine that bakes."""
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
APT_CONF = "etc/apt/apt.conf.d/99immutable-bake"
_RESOLV = "etc/resolv.conf"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY")
_APT = re.compile(
    r'(?i)^Acquire::(?:[\w.-]+::)*(?:Proxy[\w:.-]*|CaInfo|CaPath|Check-Valid-Until|Check-Date|Retries) ".+";$'
)
_PIP_INDEX = re.compile(r"^(global|install)\.index-url='(.+)'$", re.MULTILINE)
_AUTHORITY = re.compile(r'(?i)::CaInfo "(?P<file>/.+)";$')
_FAMILIES = {"Debian": "debian", "Debian-Security": "security", "Ubuntu": "ubuntu"}


def ca_bundle() -> Path | None:
    """Return the host's CA bundle: the one that the environment names, else the system's, or None."""
    for file in (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"), *_CA_FILES):
        if file and Path(file).is_file():
            return Path(file).resolve()
    return None


def environment() -> dict[str, str]:
    """Return the environment variables for commands in a bake: proxies, CA bundle, Python package indexes."""
    env = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    env |= {name: CA_BUNDLE for name in _CA_VARIABLES} if ca_bundle() else {}
    return env | _indexes()


def _indexes() -> dict[str, str]:
    """Return the variables that configure the index of uv, which does not read pip's configuration, and of pip."""
    given = {name: value for name, value in os.environ.items() if name.startswith("UV_") and "INDEX" in name}
    index = os.environ.get("PIP_INDEX_URL") or _pip_index()
    return (given or {"UV_DEFAULT_INDEX": index}) | {"PIP_INDEX_URL": index} if index else given


def write_resolv_conf(tree: Path) -> None:
    """Write this host's name servers into the tree of a layer. States may replace the file."""
    (tree / "etc").mkdir(exist_ok=True)
    (tree / _RESOLV).write_text(network.resolv_conf())


def apt_config(workspace: Path, offline: bool = False) -> dict[str, str]:
    """Write the apt configuration of a bake; return the files to mount: path inside -> path on this host."""
    files: dict[str, str] = {}
    lines = []
    for line in apt_options(offline):
        if authority := _AUTHORITY.search(line):
            inside = f"/run/immutable-{len(files)}.crt"
            files[inside] = authority["file"]
            line = line.replace(authority["file"], inside)
        lines.append(f"{line}\n")
    if bundle := ca_bundle():
        files.setdefault(CA_BUNDLE, str(bundle))
        lines.insert(0, f'Acquire::https::CaInfo "{CA_BUNDLE}";\n')
    (workspace / "apt.conf").write_text("".join(lines))
    return {f"/{APT_CONF}": str(workspace / "apt.conf"), **files}


def remove_resolv_conf(tree: Path) -> None:
    """Remove what `write_resolv_conf` wrote, unless a state replaced it."""
    file = tree / _RESOLV
    if file.is_file() and not file.is_symlink() and file.read_text() == network.resolv_conf():
        file.unlink()


def prefetch() -> None:
    """Begin to read pip's configuration in the background.

    It takes a third of a second, and the bake needs it later.
    """
    Thread(target=environment, daemon=True).start()


def _pip_index() -> str:
    with _PIP_LOCK:  # or two threads would both start pip
        return _read_pip_config()


_PIP_LOCK = Lock()


@cache
def _read_pip_config() -> str:
    """Return the package index that pip is configured for, or ''."""
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        return ""
    listed = subprocess.run([pip, "config", "list"], capture_output=True, text=True, check=False).stdout
    found = dict(_PIP_INDEX.findall(listed))
    return found.get("global") or found.get("install") or ""


def apt_options(offline: bool = False) -> list[str]:
    """Return the lines of apt configuration with which this host reaches its mirrors; ``offline``: do not retry."""
    if offline:
        return ['Acquire::Retries "0";']
    dump = run(["apt-config", "dump"]).stdout.splitlines()
    return [line for line in dump if _APT.match(line)]


def apt_sources(suite: str, components: tuple[str, ...], cache: Path | None = None) -> list[str]:
    """Return the sources.list lines for a suite, with the mirrors that this host's own apt uses.

    Where the host's apt knows no mirror of Ubuntu, these are Ubuntu's own archives. Where it knows none of Debian, the
    list is empty, and mmdebstrap uses its defaults. ``cache``: a folder for apt's index of its lists.
    """
    host_mirrors = _mirrors(cache)
    parts = " ".join(components)
    if is_ubuntu(suite):
        main, security = _UBUNTU_MIRRORS if platform.machine() in ("x86_64", "i686") else _UBUNTU_PORTS
        main, security = host_mirrors.get("ubuntu", main), host_mirrors.get("ubuntu", security)
        pockets = ((main, ""), (main, "-updates"), (security, "-security"))
        return [f"deb {mirror} {suite}{pocket} {parts}" for mirror, pocket in pockets]
    if "debian" not in host_mirrors:
        return []
    lines = [f"deb {host_mirrors['debian']} {suite} {parts}"]
    if suite not in ("sid", "unstable", "experimental"):
        lines.append(f"deb {host_mirrors['debian']} {suite}-updates {parts}")
        if "security" in host_mirrors:
            lines.append(f"deb {host_mirrors['security']} {suite}-security {parts}")
    return lines


_UBUNTU = ("bionic", "focal", "jammy", "noble", "plucky", "questing", "resolute")
_UBUNTU_CSV = Path("/usr/share/distro-info/ubuntu.csv")
_UBUNTU_MIRRORS = ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu")
_UBUNTU_PORTS = ("http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports")
KEYRINGS = Path("/usr/share/keyrings")


def is_ubuntu(suite: str) -> bool:
    """Return whether a suite is one of Ubuntu. Future suites are known from the package distro-info-data."""
    lines = _UBUNTU_CSV.read_text().splitlines() if _UBUNTU_CSV.is_file() else []
    return suite in _UBUNTU or suite in {line.split(",")[2] for line in lines[1:] if line.count(",") > 2}


def keyring(suite: str, mirror: str | None) -> Path | None:
    """Return the keyring for a suite of Ubuntu, or None where this host's apt trusts the suite's keys anyway.

    ``mirror``: the mirror that the recipe names, which other keys may have signed. Raises CommandExecutionError where
    the keyring is needed and missing.
    """
    found = KEYRINGS / "ubuntu-archive-keyring.gpg"
    if not is_ubuntu(suite) or (mirror is not None and not found.is_file()):
        return None
    if not found.is_file():
        raise CommandExecutionError(
            f"{suite} is a suite of Ubuntu, whose packages this host cannot verify: {found} is missing; "
            "run apt-get install ubuntu-keyring on the builder"
        )
    return found


def _mirrors(cache: Path | None) -> dict[str, str]:
    """Return the mirrors that the host's apt is configured for: debian, security, ubuntu -> URL."""
    options: list[str] = []
    if cache is not None and cache.is_dir():  # without a cache, as in many containers, apt reads all lists each time
        options = ["-o", f"Dir::Cache::pkgcache={cache / 'lists.bin'}", "-o", "Dir::Cache::srcpkgcache="]
    form = ["--format", "$(LABEL)|$(REPO_URI)"]
    targets = run(["apt-get", *options, "indextargets", *form, "Created-By: Packages"], check=False).stdout
    found: dict[str, str] = {}
    for line in targets.splitlines():
        label, _, uri = line.partition("|")
        if label in _FAMILIES:
            found.setdefault(_FAMILIES[label], uri.rstrip("/"))
    return found
