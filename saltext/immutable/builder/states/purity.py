"""Which states and functions take what no key can see: the internet, the clock, other minions, any command. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

_COMMANDS = ("unless", "onlyif")
_OWN_COMMANDS = {"cmd", "ansiblegate", "bower", "cabal", "chef", "composer", "cpan", "gem", "npm", "pecl", "puppet"}
_OWN_COMMANDS |= {"pyenv", "rbenv", "rvm", "zcbuildout"}
"""State modules that run programs which do as they like."""
_CHECKOUTS = ("git.latest", "git.cloned", "git.detached")
_NEWEST = (*_CHECKOUTS, "pkg.latest", "pkg.uptodate", "hg.latest", "svn.latest", "svn.export")
_KEYS = ("gpg.present", "ssh_known_hosts.present")
"""States that ask others for a key, unless it is given."""
_GIVEN = ("fingerprint", "key", "source", "text")
_CLOCK = ("x509.certificate_managed", "x509.crl_managed")
_ASKS = {
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
    "sdb.*": "asks a store of secrets",
    "ssh.recv_known_host*": "asks the network",
    "status.time": "reads the clock",
    "status.*": "looks at the machine that bakes",
    "system.get_system_*": "reads the clock",
    "vault.*": "asks the vault",
}
"""Execution functions whose answer no input tells, by glob."""
_MODULES = (
    *("aiohttp", "boto", "boto3", "datetime", "ftplib", "hvac", "http", "httpx"),
    *("requests", "socket", "time", "urllib", "urllib3"),
)
_IMPORT = re.compile(rf"(?m)^[ \t]*(?:import[ \t]+(?:[\w.]+[ \t]*,[ \t]*)*|from[ \t]+)({'|'.join(_MODULES)})\b")
_SALT_FUNCTION = re.compile(r"""['"]([a-z0-9_]+\.[a-z0-9_]+)['"]|\bsalt\.([a-z0-9_]+\.[a-z0-9_]+)\s*\(""")
"""However Python calls it: by a name in quotes, or as pyobjects do."""
_FILE = re.compile(r"\.(cfg|client|conf|d|hcl|html|ini|js|json|log|pid|py|sh|server|service|sock|toml|txt|xml|ya?ml)$")
"""What looks like a function and is the name of a file."""
_SLOT = re.compile(r"__slot__:salt:([A-Za-z0-9_.]+)")
_REMOTE = re.compile(r"(?i)^(https?|ftp|s3|swift|git\+\w+)://")
_HASH = re.compile(r"(?i)^(\w+[=:-])?[0-9a-f]{32,128}$")
_PASSWORD = re.compile(r"//[^/@\s]+@")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_PINNED = re.compile(r"===?[^,*]+$")


def of_state(low: Mapping[str, Any]) -> str | None:
    """Return what cannot be proven of one state (a chunk of the low state), or None.

    Packages without a version are no matter of this: ``refresh`` is for them.
    """
    function = f"{low.get('state')}.{low.get('fun')}"
    return _of_function(function, low) or _of_requisites(low) or _of_slots(low)


def calls(low: Mapping[str, Any]) -> list[str]:
    """Return the execution functions that a state calls in slots, and in its conditions."""
    asked = [low.get(name) for name in _COMMANDS]
    listed = [each for value in asked for each in (value if isinstance(value, list | tuple) else [value])]
    return [*_SLOT.findall(repr(low)), *(str(each["fun"]) for each in listed if isinstance(each, Mapping))]


def _of_function(function: str, low: Mapping[str, Any]) -> str | None:
    module = function.partition(".")[0]
    if module in _OWN_COMMANDS:
        return "runs a command"
    if module == "module":
        return _of_module_run(low)
    if function in _CHECKOUTS and _COMMIT.fullmatch(str(low.get("rev", ""))):
        return None
    if function in _NEWEST:
        return "takes what is newest"
    if function in _CLOCK:
        return "reads the clock"
    if function in _KEYS and not any(low.get(name) for name in _GIVEN):
        return "asks others for a key"
    if function == "pkgrepo.managed" and low.get("ppa"):
        return "asks the internet"
    if module in ("http", "docker_image", "docker_container", "flatpak", "snap"):
        return "asks the internet"
    if module in ("pip", "virtualenv"):
        return _of_pip(low)
    return _of_sources(low)


def _of_module_run(low: Mapping[str, Any]) -> str | None:
    """Judge what ``module.run`` calls: the functions of its new form are keys, that of the old form is its name."""
    called = {str(name) for name in low if "." in str(name)} or {str(low.get("name"))}
    others = sorted(name for name in called if not name.startswith("test."))
    return f"calls {', '.join(others)}" if others else None


def _of_pip(low: Mapping[str, Any]) -> str | None:
    if low.get("requirements") or low.get("editable"):
        return "installs Python packages that a file or a checkout names"
    state = low.get("state")
    wanted = low.get("pkgs") or low.get("pip_pkgs") or ([low.get("name")] if state == "pip" else [])
    loose = [str(each) for each in ([wanted] if isinstance(wanted, str) else wanted) if not _PINNED.search(str(each))]
    return f"installs Python packages without ==: {', '.join(loose)}" if loose else None


def _of_sources(low: Mapping[str, Any]) -> str | None:
    """Judge what is fetched from elsewhere: it has to be what a hash that is written down says."""
    told = str(low.get("source_hash", ""))
    proven = not low.get("skip_verify") and (told.startswith("salt://") or _HASH.match(told.split(" ")[0]))
    sources = ["key_url", "sources", *([] if proven else ["source"])]
    if f"{low.get('state')}.{low.get('fun')}" == "file.cached" and not proven:
        sources.append("name")
    remote = [address for name in sources for address in _remote(low.get(name))]
    return f"fetches {remote[0]} without a hash" if remote else None


def _remote(value: Any) -> Iterator[str]:
    """Yield the addresses on the internet in what a state calls its source: a text, a list, names and addresses."""
    if isinstance(value, str):
        if _REMOTE.match(value):
            yield _PASSWORD.sub("//", value)
    elif isinstance(value, Mapping):
        for each in (*value, *value.values()):
            yield from _remote(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _remote(each)


def _of_requisites(low: Mapping[str, Any]) -> str | None:
    """Judge the commands that decide whether a state runs."""
    for name in _COMMANDS:
        asked = low.get(name)
        for each in asked if isinstance(asked, list | tuple) else [asked]:
            if isinstance(each, str) and each:
                return f"asks a command ({name})"
            if isinstance(each, Mapping) and (reason := of_call(str(each.get("fun")))):
                return f"{reason} ({name})"
    return None


def _of_slots(low: Mapping[str, Any]) -> str | None:
    """Judge what is called while a state is applied to fill in its arguments."""
    reasons = (of_call(function) for function in _SLOT.findall(repr(low)))
    return next((f"{reason} (slot)" for reason in reasons if reason), None)


def of_call(function: str) -> str | None:
    """Return what cannot be proven of the answer of an execution function, or None."""
    return next((reason for glob, reason in _ASKS.items() if fnmatchcase(function, glob)), None)


def of_code(text: str) -> Iterator[str]:
    """Yield what cannot be proven of Python code: a state file in Python, or a custom module."""
    for module in dict.fromkeys(_IMPORT.findall(text)):
        yield f"imports {module}"
    for function in dict.fromkeys(quoted or dotted for quoted, dotted in _SALT_FUNCTION.findall(text)):
        if _FILE.search(function):
            continue
        if reason := of_call(function):
            yield f"{reason} ({function})"
