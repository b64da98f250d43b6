"""Which states and functions use what no key of a layer can see: the internet, the clock, other minions, commands.

Pure: from data to a reason in words. A layer with such a reason is called unproven.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

_CONDITIONS = ("unless", "onlyif")
_COMMAND_MODULES = {"cmd", "ansiblegate", "bower", "cabal", "chef", "composer", "cpan", "gem", "npm", "pecl", "puppet"}
_COMMAND_MODULES |= {"pyenv", "rbenv", "rvm", "zcbuildout"}
"""State modules that run programs with unknown effects."""
_CHECKOUTS = ("git.latest", "git.cloned", "git.detached")
_NEWEST = (*_CHECKOUTS, "pkg.latest", "pkg.uptodate", "hg.latest", "svn.latest", "svn.export")
_KEYS = ("gpg.present", "ssh_known_hosts.present")
"""States that fetch a key from a server, unless it is given by one of the arguments below."""
_KEY_ARGUMENTS = ("fingerprint", "key", "source", "text")
_CLOCK = ("x509.certificate_managed", "x509.crl_managed")
_UNPROVEN_CALLS = {
    "cmd.*": "runs a command",
    "dig.*": "asks name servers",
    "dnsutil.*": "asks name servers",
    "git.clone": "asks another repository",
    "git.fetch": "asks another repository",
    "git.ls_remote": "asks another repository",
    "git.pull": "asks another repository",
    "git.remote_refs": "asks another repository",
    "http.*": "asks the internet",
    "network.connect": "asks the network",
    "network.dig": "asks the network",
    "network.ping": "asks the network",
    "network.traceroute": "asks the network",
    "pkg.available_version": "asks the mirrors",
    "pip.list_all_versions": "asks the mirrors",
    "pip.list_upgrades": "asks the mirrors",
    "pkg.info_available": "asks the mirrors",
    "pkg.latest_version": "asks the mirrors",
    "pkg.list_repo_pkgs": "asks the mirrors",
    "pkg.list_upgrades": "asks the mirrors",
    "pkg.upgrade_available": "asks the mirrors",
    "publish.*": "asks other minions",
    "saltutil.cmd": "asks other minions",
    "saltutil.runner": "asks the master's runners",
    "saltutil.wheel": "asks the master's runners",
    "sdb.*": "asks a secret store",
    "ssh.recv_known_host*": "asks the network",
    "status.time": "reads the clock",
    "status.*": "reads the state of the machine that bakes",
    "system.get_system_*": "reads the clock",
    "vault.*": "asks the vault",
}
"""Globs of execution functions whose answer no key covers -> reason."""
_MODULES = (
    *("aiohttp", "boto", "boto3", "datetime", "ftplib", "hvac", "http", "httpx"),
    *("requests", "socket", "time", "urllib", "urllib3"),
)
_IMPORT = re.compile(rf"(?m)^[ \t]*(?:import[ \t]+(?:[\w.]+[ \t]*,[ \t]*)*|from[ \t]+)({'|'.join(_MODULES)})\b")
_SALT_FUNCTION = re.compile(r"""['"]([a-z0-9_]+\.[a-z0-9_]+)['"]|\bsalt\.([a-z0-9_]+\.[a-z0-9_]+)\s*\(""")
"""A function of Salt as Python calls it: a name in quotes, or an attribute of ``salt`` (pyobjects)."""
_FILE = re.compile(r"\.(cfg|client|conf|d|hcl|html|ini|js|json|log|pid|py|sh|server|service|sock|toml|txt|xml|ya?ml)$")
"""Names of files, which look like functions."""
_SLOT = re.compile(r"__slot__:salt:([A-Za-z0-9_.]+)")
_REMOTE = re.compile(r"(?i)^(https?|ftp|s3|swift|git\+\w+)://")
_HASH = re.compile(r"(?i)^(\w+[=:-])?[0-9a-f]{32,128}$")
_PASSWORD = re.compile(r"//[^/@\s]+@")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_PINNED = re.compile(r"===?[^,*]+$")


def unproven_state(low: Mapping[str, Any]) -> str | None:
    """Return why a state (a chunk of the low state) is unproven, or None.

    Packages without a version do not count here: the option ``refresh`` is for them.
    """
    function = f"{low.get('state')}.{low.get('fun')}"
    return _unproven_function(function, low) or _unproven_conditions(low) or _unproven_slots(low)


def called_functions(low: Mapping[str, Any]) -> list[str]:
    """Return the execution functions that a state calls in its slots and conditions."""
    conditions = [low.get(name) for name in _CONDITIONS]
    listed = [each for value in conditions for each in (value if isinstance(value, list | tuple) else [value])]
    return [*_SLOT.findall(repr(low)), *(str(each["fun"]) for each in listed if isinstance(each, Mapping))]


def _unproven_function(function: str, low: Mapping[str, Any]) -> str | None:
    module = function.partition(".")[0]
    if module in _COMMAND_MODULES:
        return "runs a command"
    if module == "module":
        return _unproven_module_run(low)
    if function in _CHECKOUTS and _COMMIT.fullmatch(str(low.get("rev", ""))):
        return None
    if function in _NEWEST:
        return "installs the newest version"
    if function in _CLOCK:
        return "reads the clock"
    if function in _KEYS and not any(low.get(name) for name in _KEY_ARGUMENTS):
        return "fetches a key from a server"
    if function == "pkgrepo.managed" and low.get("ppa"):
        return "asks the internet"
    if module in ("http", "docker_image", "docker_container", "flatpak", "snap"):
        return "asks the internet"
    if module in ("pip", "virtualenv"):
        return _unproven_pip(low)
    return _unproven_sources(low)


def _unproven_module_run(low: Mapping[str, Any]) -> str | None:
    """Return the functions of ``module.run`` other than ``test.*``.

    In its new form they are keys of the state; in the old form its name is the function.
    """
    called = {str(name) for name in low if "." in str(name)} or {str(low.get("name"))}
    others = sorted(name for name in called if not name.startswith("test."))
    return f"calls {', '.join(others)}" if others else None


def _unproven_pip(low: Mapping[str, Any]) -> str | None:
    if low.get("requirements") or low.get("editable"):
        return "installs Python packages that a file or a checkout names"
    packages = low.get("pkgs") or low.get("pip_pkgs") or ([low.get("name")] if low.get("state") == "pip" else [])
    packages = [packages] if isinstance(packages, str) else packages
    unpinned = [str(package) for package in packages if not _PINNED.search(str(package))]
    return f"installs Python packages without ==: {', '.join(unpinned)}" if unpinned else None


def _unproven_sources(low: Mapping[str, Any]) -> str | None:
    """Return which download has no hash that the state gives."""
    given = str(low.get("source_hash", ""))
    proven = not low.get("skip_verify") and (given.startswith("salt://") or _HASH.match(given.split(" ")[0]))
    sources = ["key_url", "sources", *([] if proven else ["source"])]
    if f"{low.get('state')}.{low.get('fun')}" == "file.cached" and not proven:
        sources.append("name")
    remote = [address for name in sources for address in _remote(low.get(name))]
    return f"fetches {remote[0]} without a hash" if remote else None


def _remote(value: Any) -> Iterator[str]:
    """Yield the URLs in an argument: text, list or mapping. Passwords are left out."""
    if isinstance(value, str):
        if _REMOTE.match(value):
            yield _PASSWORD.sub("//", value)
    elif isinstance(value, Mapping):
        for each in (*value, *value.values()):
            yield from _remote(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _remote(each)


def _unproven_conditions(low: Mapping[str, Any]) -> str | None:
    """Return why the conditions that decide whether a state runs are unproven, or None."""
    for name in _CONDITIONS:
        value = low.get(name)
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str) and each:
                return f"runs a command ({name})"
            if isinstance(each, Mapping) and (reason := unproven_call(str(each.get("fun")))):
                return f"{reason} ({name})"
    return None


def _unproven_slots(low: Mapping[str, Any]) -> str | None:
    """Return why the functions that fill in arguments of a state are unproven, or None."""
    reasons = (unproven_call(function) for function in _SLOT.findall(repr(low)))
    return next((f"{reason} (slot)" for reason in reasons if reason), None)


def unproven_call(function: str) -> str | None:
    """Return why the answer of an execution function is unproven, or None."""
    return next((reason for glob, reason in _UNPROVEN_CALLS.items() if fnmatchcase(function, glob)), None)


def unproven_code(text: str) -> Iterator[str]:
    """Yield why Python code (of a state file or a custom module) is unproven."""
    for module in dict.fromkeys(_IMPORT.findall(text)):
        yield f"imports {module}"
    for function in dict.fromkeys(quoted or dotted for quoted, dotted in _SALT_FUNCTION.findall(text)):
        if _FILE.search(function):
            continue
        if reason := unproven_call(function):
            yield f"{reason} ({function})"
