"""The tables of the guard: what each function of Salt does to the machine it runs on.

Three classes: *read* only reads, *operate* acts on running processes and leaves the files of the image alone, *change*
is everything else, unknown functions included. There are no wildcards, because the next release may add a function that
writes to a module that only reads today. ``refused_functions.py`` lists the other functions of Salt, so that a test
finds the ones that a new release adds.

The tables were made by reading the functions of Salt 3007 and 3008. ``TRAPS``: functions that look harmless and are
not. ``LIMITED``, ``SINGLE_WORDS`` and ``PLAIN_NAMES``: functions that are harmless only with some arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

READ: Mapping[str, str] = {
    "aliases": "get_target has_target list_aliases",
    "beacons": "list list_available",
    "config": "dot_vals get items merge option",
    "disk": "blkid inodeusage iostat percent usage",
    "environ": "get has_value item items",
    "file": """access basename check_hash contains contains_glob contains_regex directory_exists dirname
        diskusage file_exists get_devmm get_gid get_group get_hash get_mode get_sum
        get_uid get_user gid_to_group group_to_gid is_blkdev is_chrdev is_fifo is_hardlink is_link join
        list_backup list_backups lstat normpath open_files pardir path_exists_glob read readdir readlink search
        seek_read stats statvfs uid_to_user user_to_uid""",
    "grains": "equals fetch filter_by get has_value item items ls",
    "group": "getent info",
    "hosts": "get_alias get_ip has_pair list_hosts",
    "immutable": "answer break_glass_challenge drift preview services status",
    "iptables": "get_policy get_rules version",
    "key": "finger finger_master",
    "kmod": "is_loaded lsmod mod_list",
    "locale": "get_locale list_avail",
    "logrotate": "get show_conf",
    "lowpkg": "file_dict file_list list_pkgs owner version_cmp",
    "match": "compound data glob grain grain_pcre ipcidr list pcre pillar pillar_pcre",
    "mine": "get valid",
    "mount": "active fstab is_mounted swaps",
    "network": """active_tcp arp calc_net connect convert_cidr default_route dig fqdns get_fqdn
        get_hostname hw_addr hwaddr ifacestartswith in_subnet interface interface_ip interfaces ip_addrs ip_addrs6
        ip_in_subnet ip_neighs ip_neighs6 ip_networks ip_networks6 ipaddrs ipaddrs6 iphexval ipneighs ipneighs6
        is_loopback is_private netstat ping reverse_ip routes subnets subnets6 traceroute""",
    "pillar": "data fetch file_exists filter_by get item items keys ls obfuscate raw",
    "pkg": "list_pkgs version version_cmp",
    "ps": """boot_time cpu_percent cpu_times disk_io_counters disk_partition_usage disk_partitions disk_usage
        get_pid_list get_users netstat network_io_counters num_cpus pgrep proc_info psaux ss status
        swap_memory top total_physical_memory virtual_memory""",
    "salt_version": "equal get_release_number greater_than less_than",
    "saltutil": "find_cached_job find_job is_running list_extmods running",
    "schedule": "is_enabled job_status list show_next_fire_time",
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
"""Module to its functions that only read."""

OPERATE: Mapping[str, str] = {
    "event": "fire_master send",
    "immutable": "break_glass end_break_glass launch",
    "mine": "update",
    "ps": "kill_pid pkill",
    "saltutil": """kill_all_jobs kill_job pillar_refresh refresh_beacons refresh_grains refresh_matchers
        refresh_modules refresh_pillar refresh_resources signal_job term_all_jobs term_job""",
    "service": "force_reload reload restart start stop",
    "system": "reboot",
}
"""Module to its functions that act on running processes."""

DRY_RUNS: Mapping[str, tuple[int, str]] = {
    "state.apply": (1, "mods whitelist"),
    "state.highstate": (0, "whitelist"),
    "state.sls": (1, "mods"),
    "state.sls_id": (2, "id_ mods"),
    "state.test": (1, "mods whitelist"),
}
"""Functions that only read when called with ``test=True`` (the default of ``state.test``): how many positional
arguments they may get, and which keywords besides ``DRY_RUN_KEYWORDS``. Only states of the tree may run: functions that
take states as arguments (``single``, ``high``, ``low``, ``template``, ``template_str``, ``top``, ``pkg``, ``request``)
let the caller write ``unless`` and ``onlyif``, whose commands run in a dry run too."""

DRY_RUN_KEYWORDS = "concurrent exclude pillarenv saltenv state_events terse test"
"""Left out: ``sync_mods`` syncs code; ``localconfig`` reads any file as the minion's config; ``queue`` stores a call
that Salt 3008 makes later, without the executor; ``cache``, ``cache_name`` and ``force`` take states from any file;
``pillar`` and ``pillar_enc`` bring text of the caller into Jinja and into ``unless``."""

ANY_NUMBER = 10_000
"""Of positional arguments."""

LIMITED: Mapping[str, tuple[int, str, str]] = {
    "disk.blkid": (0, "", "they could hold options of blkid, which write a file"),
    "event.fire_master": (2, "data tag", "preload sends any request to the master"),
    "group.getent": (1, "refresh", "root selects another tree"),
    "group.info": (1, "name", "root selects another tree"),
    "lowpkg.file_dict": (ANY_NUMBER, "", "root selects another tree"),
    "lowpkg.file_list": (ANY_NUMBER, "", "root selects another tree"),
    "lowpkg.list_pkgs": (ANY_NUMBER, "", "root selects another tree"),
    "lowpkg.owner": (ANY_NUMBER, "", "root selects another tree"),
    "mine.update": (1, "clear", "mine_functions calls any function"),
    "pkg.list_pkgs": (1, "attr purge_desired removed use_context versions_as_list", "root selects another tree"),
    "pkg.version": (ANY_NUMBER, "use_context versions_as_list", "root selects another tree"),
    "ps.kill_pid": (2, "pid signal", "Salt has no other arguments for it"),
    "ps.proc_info": (2, "pid attrs", "Salt has no other arguments for it"),
    "ps.pkill": (3, "pattern signal user", "full looks at whole command lines, and would find the minion by its"),
    "service.force_reload": (2, "name no_block", "unmask changes units"),
    "service.reload": (2, "name no_block", "unmask changes units"),
    "service.restart": (2, "name no_block", "unmask changes units"),
    "service.start": (2, "name no_block", "unmask changes units"),
    "service.stop": (2, "name no_block", "Salt has no other arguments for it"),
    "state.get_pauses": (0, "", "Salt deletes the file that a jid leads to"),
    "user.getent": (1, "refresh", "root selects another tree"),
    "user.info": (1, "name", "root selects another tree"),
    "user.list_users": (0, "", "root selects another tree"),
}
"""Functions that may have only these arguments: how many positional ones, which keywords, and why no others."""

READS_FILES: Mapping[str, tuple[int, str]] = {
    "file.contains": (0, "path"),
    "file.contains_glob": (0, "path"),
    "file.contains_regex": (0, "path"),
    "file.read": (0, "path"),
    "file.search": (0, "path"),
    "file.seek_read": (0, "path"),
    "logrotate.get": (2, "conf_file"),
    "logrotate.show_conf": (0, "conf_file"),
    "mount.fstab": (0, "config"),
    "sysctl.show": (0, "config_file"),
}
"""Functions that tell what is in a file which the caller names, and the position and keyword of its path."""

ENVIRONMENTS: Mapping[str, tuple[int, ...]] = {
    "pillar.fetch": (5, 6),
    "pillar.file_exists": (1,),
    "pillar.get": (5, 6),
}
"""Functions of these tables that take an environment by position, and at which. All may take one by keyword."""

NARROW: Mapping[str, tuple[int, str]] = {
    "kmod.remove": (1, "mod"),
    "service.disable": (2, "name no_block"),
    "service.enable": (2, "name no_block"),
    "service.mask": (2, "name runtime"),
    "service.systemctl_reload": (0, ""),
    "service.unmask": (2, "name runtime"),
    "system.halt": (0, ""),
    "system.poweroff": (0, ""),
    "system.shutdown": (1, "at_time"),
}
"""Functions that a recipe may allow though they change the machine: each does one thing, without a command, a file or a
host of the caller's choice. So they take only plain names, and only these arguments: how many positional ones, and
which keywords. Others edit ``/etc/modules``, select another tree, or change units besides."""

SINGLE_WORDS: Mapping[str, str] = {
    "disk": "iostat",
    "lowpkg": "file_dict file_list list_pkgs owner version_cmp",
    "network": "dig ping traceroute",
    "pkg": "version_cmp",
    "system": "reboot",
    "user": "get_loginclass primary_group",
}
"""Functions whose arguments become words of a command line: each must be a single word and not an option."""

PLAIN_NAMES = "service"
"""The module whose arguments must be plain names and not paths: on a host without systemd, ``service.start`` executes
the file of that name."""

UNIT_TYPES = "automount device mount path scope service slice socket swap target timer"
"""The types of systemd's units. A name without one is that of a service."""

OPERATED_TYPES = "service socket target timer"
"""The types of units that may be started, stopped, restarted and reloaded. Stopping a mount changes what is where."""

NEVER_OPERATED: Mapping[str, str] = {
    "debug-shell": "it is a shell of root without a password",
    "emergency": "it ends all others",
    "immutable-*": "it is a unit of the guard itself",
    "initrd-*": "it belongs to the start of the system",
    "modprobe@*": "it loads a module of the kernel",
    "packagekit-offline-update*": "it installs packages",
    "quotaon*": "it changes file systems",
    "rescue": "it ends all others",
    "system-update-cleanup*": "it removes files",
    "systemd-bless-boot*": "it changes the boot loader",
    "systemd-boot-update*": "it changes the boot loader",
    "systemd-confext*": "it puts other files over /etc",
    "systemd-sysext*": "it puts other files over /usr",
    "systemd-*-generator*": "it makes units",
    "systemd-exit*": "it ends this machine",
    "systemd-firstboot*": "it sets up a new system",
    "systemd-fsck*": "it changes file systems",
    "systemd-growfs*": "it changes file systems",
    "systemd-hibernate*": "it stops this machine",
    "systemd-hybrid-sleep*": "it stops this machine",
    "systemd-machine-id-commit*": "it writes to the root",
    "systemd-makefs*": "it changes file systems",
    "systemd-mkswap*": "it changes file systems",
    "systemd-nspawn@*": "it boots another system",
    "systemd-quotacheck*": "it changes file systems",
    "systemd-remount-fs*": "it changes mounts",
    "systemd-repart*": "it changes file systems",
    "systemd-storagetm*": "it lets others read and write the disks",
    "systemd-suspend*": "it stops this machine",
    "systemd-sysusers*": "it makes users",
    "systemd-volatile-root*": "it changes mounts",
    "systemd-*reboot*": "it ends this machine, or starts another system in it",
    "systemd-*halt*": "it ends this machine",
    "systemd-kexec*": "it ends this machine",
    "systemd-poweroff*": "it ends this machine",
    "user-runtime-dir@*": "it mounts a folder of a user",
    "user@*": "it runs units of a user",
}
"""Units (globs of their names without the type) that are not operated, and why."""

SYSTEM_TARGETS = """
    basic cryptsetup ctrl-alt-del default emergency exit factory-reset final graphical halt hibernate hybrid-sleep
    initrd initrd-fs initrd-root-device initrd-root-fs initrd-switch-root initrd-usr-fs integritysetup kbrequest kexec
    local-fs local-fs-pre multi-user network network-online network-pre poweroff reboot remote-fs remote-fs-pre rescue
    runlevel0 runlevel1 runlevel2 runlevel3 runlevel4 runlevel5 runlevel6 shutdown sigpwr sleep soft-reboot
    storage-target-mode suspend suspend-then-hibernate swap sysinit system-update system-update-pre umount veritysetup
"""
"""Targets of systemd itself, which mount, unmount or end the system: they are not operated."""

TAGS_OF_THE_MINION = (
    "_",
    "beacons_refresh",
    "environ_setenv",
    "fire_master",
    "grains_refresh",
    "manage_",
    "matchers_refresh",
    "module_refresh",
    "pillar_refresh",
    "resource_refresh",
    "salt/",
)
"""Prefixes of the events that a minion acts on. ``event.send`` without a master puts its event on the minion's own bus,
where ``manage_schedule`` adds jobs that no executor sees."""

TRAPS: Mapping[str, str] = {
    "beacons.*": "beacons call functions that the guard does not see",
    "chroot.*": "it mounts, and runs any function",
    "config.gather_bootstrap_script": "it downloads a file",
    "cp.*": "it writes what it fetches into the cache or to any path",
    "disk.hdparms": "options of hdparm also change settings",
    "disk.smart_attributes": "its argument can hold options of smartctl",
    "environ.set*": "each later command of this minion inherits the variable",
    "event.fire": "events on the minion's own bus schedule jobs that the guard does not see",
    "file.find": "it can delete and execute what it finds",
    "file.get_diff": "it fetches files and renders them",
    "file.get_managed": "it fetches files and renders them",
    "file.grep": "its arguments can hold options of grep",
    "http.query": "it writes files",
    "jinja.*": "it renders Jinja, which runs commands",
    "mine.send": "it calls any function",
    "network.get_route": "its argument goes through a shell",
    "pillar.ext": "it runs any external pillar",
    "pkg.latest_version": "it refreshes the package database",
    "pkg.list_upgrades": "it refreshes the package database",
    "pkg.upgrade_available": "it refreshes the package database",
    "ps.lsof": "its argument can hold options of lsof",
    "publish.*": "it makes other machines act",
    "saltutil.cmd": "it makes other machines act",
    "saltutil.cmd_iter": "it makes other machines act",
    "saltutil.mmodule": "it calls any function",
    "saltutil.runner": "it calls any runner",
    "saltutil.sync_*": "it syncs code, which Salt's loader would take before the guard",
    "saltutil.wheel": "it calls any wheel function",
    "schedule.*": "it schedules calls that the guard does not see",
    "slsutil.*": "it renders Jinja, which runs commands",
    "state.graph*": "it renders Jinja, which runs commands",
    "state.id_exists": "it renders Jinja, which runs commands",
    "state.show_*": "it renders Jinja, which runs commands",
    "state.single": "with test=True too it runs the commands of unless and onlyif",
    "state.sls_exists": "it renders Jinja, which runs commands",
    "status.custom": "it calls the functions that the config names",
    "supervisord.*": "it executes the program that bin_env names",
    "sysctl.get": "its argument can hold options of sysctl",
    "test.cross_test": "it calls any function",
    "test.try": "it calls any function",
}
"""Functions (globs) that look as if they only read, and why they are refused. The tables above come first."""
