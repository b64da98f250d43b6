"""How this host reaches the outside world: mirrors, proxies, CA bundle. Bakes do as it does, images keep none of it."""

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
"""Where a bake sees the host's CA bundle."""
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
    """Return the host's CA bundle: what the environment names, else the system's."""
    for file in (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"), *_CA_FILES):
        if file and Path(file).is_file():
            return Path(file).resolve()
    return None


def environment() -> dict[str, str]:
    """Return the variables for commands in a bake: proxies, the CA bundle, Python package indexes."""
    env = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    env |= {name: CA_BUNDLE for name in _CA_VARIABLES} if ca_bundle() else {}
    return env | _indexes()


def _indexes() -> dict[str, str]:
    """Return the indexes for uv: it does not read pip's configuration, so it is told what stands there."""
    named = {name: value for name, value in os.environ.items() if name.startswith("UV_") and "INDEX" in name}
    if named:
        return named
    index = os.environ.get("PIP_INDEX_URL") or _pip_index()
    return {"UV_DEFAULT_INDEX": index} if index else {}


def lend_resolver(tree: Path) -> None:
    """Give a bake this host's name servers: as a file, which its states may write anew."""
    (tree / "etc").mkdir(exist_ok=True)
    (tree / _RESOLV).write_text(network.resolv_conf())


def lend_apt(workspace: Path, offline: bool = False) -> dict[str, str]:
    """Give a bake the host's way to its mirrors: files to show inside."""
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


def take_resolver_back(tree: Path) -> None:
    """Remove what was lent, unless a state wrote it anew."""
    file = tree / _RESOLV
    if file.is_file() and not file.is_symlink() and file.read_text() == network.resolv_conf():
        file.unlink()


def prefetch() -> None:
    """Begin to ask what takes a while to be told, before anybody waits for it."""
    Thread(target=environment, daemon=True).start()


def _pip_index() -> str:
    with _ONE_ASKS:
        return _asked_pip()


_ONE_ASKS = Lock()


@cache
def _asked_pip() -> str:
    """Return the package index that pip is configured for; pip takes a third of a second to say it."""
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        return ""
    told = subprocess.run([pip, "config", "list"], capture_output=True, text=True, check=False).stdout
    found = dict(_PIP_INDEX.findall(told))
    return found.get("global") or found.get("install") or ""


def apt_options(offline: bool = False) -> list[str]:
    """Return the lines of apt configuration by which this host reaches its mirrors; ``offline``: it need not try."""
    if offline:
        return ['Acquire::Retries "0";']
    dump = run(["apt-config", "dump"]).stdout.splitlines()
    return [line for line in dump if _APT.match(line)]


def apt_sources(suite: str, components: tuple[str, ...], cache: Path | None = None) -> list[str]:
    """Return sources.list lines for a suite from the mirrors that this host's own apt uses.

    Those of Ubuntu itself if the host's apt knows no mirror of it; empty for Debian likewise: mmdebstrap then takes its
    defaults. ``cache``: a folder for what apt would read anew each time.
    """
    known = _mirrors(cache)
    words = " ".join(components)
    if is_ubuntu(suite):
        main, security = _UBUNTU_MIRRORS if platform.machine() in ("x86_64", "i686") else _UBUNTU_PORTS
        main, security = known.get("ubuntu", main), known.get("ubuntu", security)
        pockets = ((main, ""), (main, "-updates"), (security, "-security"))
        return [f"deb {mirror} {suite}{pocket} {words}" for mirror, pocket in pockets]
    if "debian" not in known:
        return []
    lines = [f"deb {known['debian']} {suite} {words}"]
    if suite not in ("sid", "unstable", "experimental"):
        lines.append(f"deb {known['debian']} {suite}-updates {words}")
        if "security" in known:
            lines.append(f"deb {known['security']} {suite}-security {words}")
    return lines


_UBUNTU = ("bionic", "focal", "jammy", "noble", "plucky", "questing", "resolute")
_UBUNTU_CSV = Path("/usr/share/distro-info/ubuntu.csv")
_UBUNTU_MIRRORS = ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu")
_UBUNTU_PORTS = ("http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports")
KEYRINGS = Path("/usr/share/keyrings")


def is_ubuntu(suite: str) -> bool:
    """Tell whether a suite is one of Ubuntu; the package distro-info-data knows of those to come."""
    lines = _UBUNTU_CSV.read_text().splitlines() if _UBUNTU_CSV.is_file() else []
    return suite in _UBUNTU or suite in {line.split(",")[2] for line in lines[1:] if line.count(",") > 2}


def keyring(suite: str, mirror: str | None) -> Path | None:
    """Return the keys that a suite of Ubuntu is signed by; None: those that this host's apt trusts anyway.

    Raises if they are not on this host; only a mirror that the recipe names may be signed by somebody else.
    """
    found = KEYRINGS / "ubuntu-archive-keyring.gpg"
    if not is_ubuntu(suite) or (mirror is not None and not found.is_file()):
        return None
    if not found.is_file():
        raise CommandExecutionError(
            f"{suite} is a suite of Ubuntu, whose packages this host cannot verify: {found} is missing; "
            "install the package ubuntu-keyring on the builder"
        )
    return found


def _mirrors(cache: Path | None) -> dict[str, str]:
    """Return the mirror of each archive that the host's apt is configured for."""
    options: list[str] = []
    if cache is not None and cache.is_dir():  # many a container keeps none: apt then reads all its lists, each time
        options = ["-o", f"Dir::Cache::pkgcache={cache / 'lists.bin'}", "-o", "Dir::Cache::srcpkgcache="]
    form = ["--format", "$(LABEL)|$(REPO_URI)"]
    targets = run(["apt-get", *options, "indextargets", *form, "Created-By: Packages"], check=False).stdout
    found: dict[str, str] = {}
    for line in targets.splitlines():
        label, _, uri = line.partition("|")
        if label in _FAMILIES:
            found.setdefault(_FAMILIES[label], uri.rstrip("/"))
    return found
