"""What the functions of Salt do to the machine they run on: the tables that the guard decides by.

Three classes: *read* looks, *operate* acts on what runs and leaves the files of the image alone, *change* is everything
else, known to us or not. There are no wildcards: a module that only reads today has a function that writes in its next
release. ``changes.py`` names the rest of Salt's functions, so that a test sees which a new release adds.

The tables were made by reading the functions of Salt 3007 and 3008. Many that look harmless are in ``TRAPS``, and many
are harmless only with some arguments: ``ONLY``, ``WORDS`` and ``NAMES``.
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
    "immutable": "break_glass_challenge drift preview status",
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
"""Module to the functions of it that only look."""

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
"""Module to the functions of it that act on what runs."""

DRY_RUNS: Mapping[str, tuple[int, str]] = {
    "state.apply": (1, "mods whitelist"),
    "state.highstate": (0, "whitelist"),
    "state.sls": (1, "mods"),
    "state.sls_id": (2, "id_ mods"),
    "state.test": (1, "mods whitelist"),
}
"""Functions that only read with ``test=True``, which ``state.test`` says itself: how many arguments may come by
position, and their keywords besides ``DRY_RUN``. Only states of the tree: what takes states from its arguments
(``single``, ``high``, ``low``, ``template``, ``template_str``, ``top``, ``pkg``, ``request``) takes commands in
``unless`` and ``onlyif`` with them, and these run in a dry run too."""

DRY_RUN = "concurrent exclude pillarenv saltenv state_events terse test"
"""Not among them: ``sync_mods`` brings code; ``localconfig`` reads any file as the minion's config; ``queue`` writes
a call down that is made later, by itself (Salt 3008); ``cache``, ``cache_name`` and ``force`` take states from any
file; ``pillar`` and ``pillar_enc`` bring words of the caller into Jinja and into ``unless``."""

MANY = 10_000
"""Any number of arguments by position."""

ONLY: Mapping[str, tuple[int, str, str]] = {
    "disk.blkid": (0, "", "they can hold blkid's options, which write a file"),
    "event.fire_master": (2, "data tag", "preload sends any request to the master"),
    "group.getent": (1, "refresh", "root is another machine's tree"),
    "group.info": (1, "name", "root is another machine's tree"),
    "lowpkg.file_dict": (MANY, "", "root is another machine's tree"),
    "lowpkg.file_list": (MANY, "", "root is another machine's tree"),
    "lowpkg.list_pkgs": (MANY, "", "root is another machine's tree"),
    "lowpkg.owner": (MANY, "", "root is another machine's tree"),
    "mine.update": (1, "clear", "mine_functions calls any function"),
    "pkg.list_pkgs": (1, "attr purge_desired removed use_context versions_as_list", "root is another machine's tree"),
    "pkg.version": (MANY, "use_context versions_as_list", "root is another machine's tree"),
    "service.force_reload": (2, "name no_block", "unmask changes units"),
    "service.reload": (2, "name no_block", "unmask changes units"),
    "service.restart": (2, "name no_block", "unmask changes units"),
    "service.start": (2, "name no_block", "unmask changes units"),
    "service.stop": (2, "name no_block", "Salt knows no others"),
    "state.get_pauses": (0, "", "it deletes the file that they name"),
    "user.getent": (1, "refresh", "root is another machine's tree"),
    "user.info": (1, "name", "root is another machine's tree"),
    "user.list_users": (0, "", "root is another machine's tree"),
}
"""Functions that stay in their class with these arguments only: how many by position, which keywords, and why."""

WORDS: Mapping[str, str] = {
    "disk": "iostat",
    "lowpkg": "file_dict file_list list_pkgs owner version_cmp",
    "network": "dig ping traceroute",
    "pkg": "version_cmp",
    "system": "reboot",
    "user": "get_loginclass primary_group",
}
"""Functions whose arguments become words of a command line: each must be one word and no option."""

NAMES = "service"
"""The module whose arguments must be plain names, not even paths: where systemd does not run, ``service.start``
executes the file that it is given."""

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
"""How the events begin that a minion acts upon. ``event.send`` without a master puts its event on the minion's bus,
where ``manage_schedule`` adds jobs that no executor sees."""

TRAPS: Mapping[str, str] = {
    "beacons.*": "beacons call functions that the guard does not see",
    "chroot.*": "it mounts, and runs any function",
    "config.gather_bootstrap_script": "it downloads a file",
    "cp.*": "it writes what it fetches into the cache or to any path",
    "disk.hdparms": "hdparm's letters also set",
    "disk.smart_attributes": "its argument can hold smartctl's options",
    "environ.set*": "each later command of this minion inherits it",
    "event.fire": "the minion acts on events of its own bus: they plan jobs that the guard does not see",
    "file.find": "it can delete and execute what it finds",
    "file.get_diff": "it fetches files and renders them",
    "file.get_managed": "it fetches files and renders them",
    "file.grep": "its arguments can hold grep's options",
    "http.query": "it writes files",
    "jinja.*": "it renders Jinja, which runs commands",
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
    "state.id_exists": "it renders Jinja, which runs commands",
    "state.show_*": "it renders Jinja, which runs commands",
    "state.single": "with test=True too it runs the commands of unless and onlyif",
    "state.sls_exists": "it renders Jinja, which runs commands",
    "status.custom": "it calls the functions that the config names",
    "supervisord.*": "it executes the program that bin_env names",
    "sysctl.get": "its argument can hold sysctl's options",
    "test.cross_test": "it calls any function",
    "test.try": "it calls any function",
}
"""Functions (globs) that look as if they only read, and why they are refused; those in the tables above are not."""
