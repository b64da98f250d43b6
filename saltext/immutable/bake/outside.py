"""How this host reaches the outside world: mirrors, proxies, CA bundle. Bakes do as it does, images keep none of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

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
    """uv does not read pip's configuration, so it is told what stands there."""
    named = {name: value for name, value in os.environ.items() if name.startswith("UV_") and "INDEX" in name}
    if named:
        return named
    index = os.environ.get("PIP_INDEX_URL") or _pip("global.index-url") or _pip("install.index-url")
    return {"UV_DEFAULT_INDEX": index} if index else {}


def lend_resolver(tree: Path) -> None:
    """Give a bake this host's name servers: as a file, which its states may write anew."""
    (tree / "etc").mkdir(exist_ok=True)
    (tree / _RESOLV).write_text(network.resolv_conf())


def lend_apt(workspace: Path) -> dict[str, str]:
    """Give a bake the host's way to its mirrors: files to show inside."""
    files: dict[str, str] = {}
    lines = []
    for line in apt_options():
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


@cache
def _pip(setting: str) -> str:
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        return ""
    return subprocess.run([pip, "config", "get", setting], capture_output=True, text=True, check=False).stdout.strip()


def apt_options() -> list[str]:
    """Return the lines of apt configuration by which this host reaches its mirrors."""
    dump = run(["apt-config", "dump"]).stdout.splitlines()
    return [line for line in dump if _APT.match(line)]


def apt_sources(suite: str, components: tuple[str, ...]) -> list[str]:
    """Return sources.list lines for a suite from the mirrors that this host's own apt uses.

    Empty if the host's apt knows no mirror of that distribution: mmdebstrap then takes its defaults.
    """
    known = _mirrors()
    words = " ".join(components)
    if suite in _UBUNTU:
        pockets = ("", "-updates", "-security") if "ubuntu" in known else ()
        return [f"deb {known['ubuntu']} {suite}{pocket} {words}" for pocket in pockets]
    if "debian" not in known:
        return []
    lines = [f"deb {known['debian']} {suite} {words}"]
    if suite not in ("sid", "unstable", "experimental"):
        lines.append(f"deb {known['debian']} {suite}-updates {words}")
        if "security" in known:
            lines.append(f"deb {known['security']} {suite}-security {words}")
    return lines


# Suites that mmdebstrap takes from Ubuntu when it is given no mirror.
_UBUNTU = ("jammy", "noble", "plucky", "questing", "resolute")


def _mirrors() -> dict[str, str]:
    """Return the mirror of each archive that the host's apt is configured for."""
    form = "$(LABEL)|$(REPO_URI)"
    targets = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], check=False).stdout
    found: dict[str, str] = {}
    for line in targets.splitlines():
        label, _, uri = line.partition("|")
        if label in _FAMILIES:
            found.setdefault(_FAMILIES[label], uri.rstrip("/"))
    return found
