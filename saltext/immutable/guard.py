"""May this call run on a machine that runs an image? Pure: a decision and its reason.

Three classes of functions: *read* looks, *operate* acts on what runs and leaves the files of the image
alone, *change* is everything else. What is in neither table is a change, known to us or not. There are
no wildcards: a module that only reads today has a function that writes in its next release.

The tables were made by reading the functions of Salt 3008. Many that look harmless are in ``TRAPS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Class = Literal["read", "operate", "change"]

READ: Mapping[str, str] = {
    "config": "dot_vals get items merge option",
    "disk": "blkid inodeusage iostat percent usage",
    "environ": "get has_value item items",
    "file": """access basename check_hash contains contains_glob contains_regex directory_exists dirname
        diskusage file_exists get_devmm get_gid get_group get_hash get_mode get_sum
        get_uid get_user gid_to_group group_to_gid is_blkdev is_chrdev is_fifo is_hardlink is_link join
        lstat normpath pardir path_exists_glob read readdir readlink search seek_read stats statvfs
        uid_to_user user_to_uid""",
    "grains": "equals fetch filter_by get has_value item items ls",
    "group": "getent info",
    "immutable": "status",
    "iptables": "get_policy get_rules version",
    "key": "finger finger_master",
    "kmod": "is_loaded lsmod mod_list",
    "locale": "get_locale list_avail",
    "match": "compound data glob grain grain_pcre ipcidr list pcre pillar pillar_pcre",
    "mine": "get valid",
    "mount": "active fstab is_mounted swaps",
    "network": """active_tcp arp calc_net connect convert_cidr default_route dig fqdns get_fqdn
        get_hostname hw_addr in_subnet interface interface_ip interfaces ip_addrs ip_addrs6 ip_in_subnet
        ip_neighs ip_neighs6 ip_networks ip_networks6 ipaddrs ipaddrs6 is_loopback is_private netstat ping
        reverse_ip routes subnets subnets6 traceroute""",
    "pillar": "data fetch file_exists filter_by get item items keys ls obfuscate raw",
    "pkg": "list_pkgs version version_cmp",
    "ps": """boot_time cpu_percent cpu_times disk_io_counters disk_partition_usage disk_partitions disk_usage
        get_pid_list get_users netstat network_io_counters num_cpus pgrep proc_info psaux ss status
        swap_memory top total_physical_memory virtual_memory""",
    "salt_version": "equal get_release_number greater_than less_than",
    "saltutil": "find_cached_job find_job is_running list_extmods running",
    "service": """available disabled enabled execs get_all get_disabled get_enabled get_running get_static
        masked missing show status""",
    "state": "get_pauses list_disabled running",
    "status": """all_status cpuinfo cpustats diskstats diskusage loadavg master meminfo netdev netstats nproc
        pid ping_master procs time uptime version vmstats w""",
    "sys": """argspec doc list_functions list_modules list_renderers list_returner_functions list_returners
        list_runner_functions list_runners list_state_functions list_state_modules renderer_doc
        returner_argspec returner_doc runner_argspec runner_doc state_argspec state_doc state_schema""",
    "sysctl": "show",
    "system": """get_computer_desc get_computer_name get_reboot_required_witnessed get_system_date
        get_system_date_time get_system_time has_settable_hwclock""",
    "test": """arg arg_clean arg_repr arg_type assertion attr_call collatz conf_test echo exception false fib
        get_opts kwarg module_report not_loaded opts_pkg outputter ping provider providers rand_sleep rand_str
        random_hash retcode sleep stack true version versions versions_information versions_report""",
    "timezone": "get_hwclock get_offset get_zone get_zonecode zone_compare",
    "user": "get_loginclass getent info list_groups list_users primary_group",
}
"""Module to the functions of it that only look."""

OPERATE: Mapping[str, str] = {
    "event": "fire fire_master send",
    "mine": "update",
    "ps": "kill_pid pkill",
    "saltutil": """kill_all_jobs kill_job pillar_refresh refresh_beacons refresh_grains refresh_matchers
        refresh_modules refresh_pillar refresh_resources signal_job term_all_jobs term_job""",
    "service": "force_reload reload restart start stop",
    "system": "reboot",
}
"""Module to the functions of it that act on what runs."""

ONLY: Mapping[str, tuple[str, ...]] = {
    "disk.blkid": (),
    "mine.update": ("clear",),
    "service.force_reload": ("name", "no_block"),
    "service.reload": ("name", "no_block"),
    "service.restart": ("name", "no_block"),
    "service.start": ("name", "no_block"),
}
"""Functions that stay in their class with these arguments (in this order) only. The others of ``service``
unmask units, blkid's name its cache file, and ``mine.update`` calls any function it is given."""

TRAPS: Mapping[str, str] = {
    "chroot.*": "it mounts, and runs any function",
    "config.gather_bootstrap_script": "it downloads a file",
    "cp.*": "it writes what it fetches into the cache or to any path",
    "disk.hdparms": "hdparm's letters also set",
    "file.find": "it can delete and execute what it finds",
    "file.get_diff": "it fetches files and renders them",
    "file.get_managed": "it fetches files and renders them",
    "http.query": "it writes files",
    "mine.send": "it calls any function",
    "network.get_route": "its argument goes through a shell",
    "pillar.ext": "it runs any external pillar",
    "pkg.latest_version": "it refreshes the package database",
    "pkg.list_upgrades": "it refreshes the package database",
    "pkg.upgrade_available": "it refreshes the package database",
    "ps.lsof": "its argument can hold lsof's options",
    "publish.*": "it makes other machines act",
    "saltutil.cmd": "it makes other machines act",
    "saltutil.cmd_iter": "it makes other machines act",
    "saltutil.mmodule": "it calls any function",
    "saltutil.runner": "it calls any runner",
    "saltutil.sync_*": "it brings code that would outrank the guard",
    "saltutil.wheel": "it calls any wheel function",
    "schedule.*": "it plans calls that the guard does not see",
    "slsutil.*": "it renders Jinja, which runs commands",
    "state.graph*": "it renders Jinja, which runs commands",
    "state.show_*": "it renders Jinja, which runs commands",
    "status.custom": "it calls the functions that the config names",
    "sysctl.get": "its argument can hold sysctl's options",
    "test.cross_test": "it calls any function",
    "test.try": "it calls any function",
}
"""Functions (globs) that look as if they only read, and why they are refused."""

ANSWERS_WHEN_DAMAGED = ("test.ping", "immutable.status")


ALWAYS = frozenset({"test.ping", "immutable.status", "saltutil.find_job", "saltutil.running"})
"""A machine that does not answer these cannot be managed: no ``deny`` takes them away."""

_READ, _OPERATE = (
    frozenset(f"{module}.{function}" for module, names in table.items() for function in names.split())
    for table in (READ, OPERATE)
)


@dataclass(frozen=True)
class Sealed:
    """Whom the guard speaks for, and what the recipe adds to its tables."""

    image: str
    """As people write it: ``web@3f2a9c1d04be``."""
    recipe: str
    fleet: str | None = None
    """None: no fleet launched this machine."""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Globs of function names; ``deny`` wins."""
    dry_runs: bool = True
    """Whether states may run with ``test=True``."""


def refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed) -> str | None:
    """Return why this call may not run on a machine sealed like this, with what to do instead; or None."""
    if classify(fun, args, kwargs, sealed) != "change":
        return None
    whose = f" of fleet {sealed.fleet}" if sealed.fleet else ""
    return f"sealed: image {sealed.image}{whose}: {_why(fun, sealed)}; {_instead(sealed)}"


def classify(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None = None) -> Class:
    """Return what a call does to the machine it runs on; what is unknown or denied is a change.

    What only the recipe allows is at most *operate*: it is recorded.
    """
    if sealed is not None and fun not in ALWAYS and _matches(fun, sealed.deny):
        return "change"
    found = _listed(fun, args, kwargs)
    if found == "change" and sealed is not None and _matches(fun, sealed.allow):
        return "operate"
    return found


def damaged(fun: str, reason: str) -> str | None:
    """Return why this call may not run where the seal cannot be read; None for what tells of that."""
    if fun in ANSWERS_WHEN_DAMAGED:
        return None
    return f"sealed: {reason}; nothing but {' and '.join(ANSWERS_WHEN_DAMAGED)} runs; replace this machine"


def _listed(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Class:
    if fun in ONLY and not _within(ONLY[fun], args, kwargs):
        return "change"
    if fun in _READ:
        return "read"
    return "operate" if fun in _OPERATE else "change"


def _within(only: tuple[str, ...], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Salt's own ``__pub_*`` keywords tell who called; they are no arguments."""
    return len(args) <= len(only) and all(key in only for key in kwargs if not key.startswith("__"))


def _matches(fun: str, globs: Sequence[str]) -> str | None:
    return next((glob for glob in globs if fnmatchcase(fun, glob)), None)


def _why(fun: str, sealed: Sealed) -> str:
    if fun not in ALWAYS and (glob := _matches(fun, sealed.deny)):
        return f"its recipe denies {fun} (guard: deny: {glob})"
    if trap := _matches(fun, tuple(TRAPS)):
        return f"{fun} could change this machine: {TRAPS[trap]}"
    module = fun.partition(".")[0]
    if module in READ or module in OPERATE or module == "cmd":
        return f"{fun} would change this machine"
    return f"{fun} is not known to leave this machine as it is"


def _instead(sealed: Sealed) -> str:
    if sealed.fleet:
        return f"rebuild the fleet instead (salt-run fleet.rebuild {sealed.fleet})"
    return f"bake and roll the recipe instead (salt-run image.bake {sealed.recipe})"
