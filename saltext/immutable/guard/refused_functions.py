"""The functions of Salt that the guard refuses, and those that are dangerous for a recipe to allow.

The guard does not read these tables before a call: whatever is not in `function_tables` is refused. They are for the
test that finds the functions that a new release of Salt adds, and for checking a recipe's ``allow``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache

from saltext.immutable.guard.function_tables import LIMITED, NARROW, OPERATE, PLAIN_NAMES, SINGLE_WORDS
from saltext.immutable.guard.policy import full_names

CHANGE: Mapping[str, str] = {
    "aliases": "rm_alias set_target",
    "beacons": "add delete disable disable_beacon enable enable_beacon modify reset save",
    "config": "backup_mode gather_bootstrap_script manage_mode valid_fileproto",
    "disk": "dump format fstype get_fstype_from_path hdparms hpa resize2fs smart_attributes tune wipe",
    "environ": "setenv setval",
    "event": "fire",
    "file": """append apply_template_on_contents blockreplace chattr check_file_meta check_managed check_managed_changes
        check_perms chgrp chown chpgrp comment comment_line copy delete_backup extract_hash find get_attributes get_diff
        get_managed get_pgid get_pgroup get_selinux_context get_source_sum grep lchown line link list_backups_dir lsattr
        makedirs makedirs_perms manage_file mkdir mknod mknod_blkdev mknod_chrdev mknod_fifo move patch prepend psed
        remove remove_backup rename replace restore_backup restorecon rmdir sed sed_contains seek_write set_attributes
        set_mode set_perms set_selinux_context source_list symlink touch truncate uncomment version version_details
        write""",
    "grains": "append delkey delval remove set setval setvals",
    "group": "add adduser chgid delete deluser list_groups members",
    "hosts": "add_host rm_host set_comment set_host",
    "immutable": "seal unseal",
    "iptables": """append build_rule check check_chain delete delete_chain flush get_saved_policy get_saved_rules insert
        new_chain save set_policy""",
    "kmod": "available check_available load remove",
    "locale": "avail gen_locale set_locale",
    "logrotate": "set",
    "lowpkg": "bin_pkg_info checksum diff info modified unpurge verify",
    "match": "filter_by ifelse search_by",
    "mine": "delete flush get_docker send",
    "mount": """automaster delete_mount_cache filesystems get_device_from_path get_mount_from_path is_fuse_exec mount
        read_mount_cache remount rm_automaster rm_filesystems rm_fstab rm_vfstab set_automaster set_filesystems
        set_fstab set_vfstab swapoff swapon umount vfstab write_mount_cache""",
    "network": "get_bufsize get_route interfaces_names mod_bufsize mod_hostname nslookup wol",
    "pillar": "ext",
    "pkg": """add_repo add_repo_key audit autoremove available_version backup check check_db check_extra_requirements
        clean clean_locks clean_metadata collect_garbage compare_versions del_repo del_repo_key delete depclean diff
        download ex_mod_init fetch file_dict file_list genrepo get_fmri get_locked_packages get_package_info get_repo
        get_repo_data get_repo_keys get_selections group_diff group_info group_install group_list groupinstall hold
        homebrew_prefix info info_available info_installed install installed is_installed latest_version list_available
        list_downloaded list_holds list_installed_patches list_installed_patterns list_locked list_locks list_patches
        list_patterns list_products list_provides list_repo_pkgs list_repos list_updates list_upgrades lock locked
        mod_repo modified normalize_name owner parse_arch parse_config pin porttree_matches purge refresh_db remove
        resolve_capabilities restore search services_need_restart set_selections show stats unhold uninstall unlock
        unpin update update_package_site updating upgrade upgrade_available verify version_clean which""",
    "ps": "lsof",
    "saltutil": """clear_cache clear_job_cache cmd cmd_iter mmodule regen_keys revoke_auth runner sync_all sync_beacons
        sync_clouds sync_engines sync_executors sync_grains sync_log_handlers sync_matchers sync_modules sync_output
        sync_outputters sync_pillar sync_proxymodules sync_renderers sync_resources sync_returners sync_sdb
        sync_serializers sync_states sync_thorium sync_tops sync_utils sync_wrapper update wheel""",
    "schedule": """add build_schedule_item copy delete disable disable_job enable enable_job modify move postpone_job
        purge reload run_job save skip_job""",
    "service": """create create_win_salt_restart_task delete disable enable execute_salt_restart_task firstboot
        full_restart get_service_name get_stopped getsid info launchctl list loaded mask modify offline run running
        systemctl_reload unmask zap""",
    "state": """apply check_request clear_cache clear_request disable enable event graph graph_highstate high highstate
        id_exists low orchestrate pause pkg request resume run_request show_highstate show_low_sls show_lowstate
        show_sls show_state_usage show_states show_top single sls sls_exists sls_id soft_kill template template_str test
        top""",
    "status": "cpuload custom proxy_reconnect saltmem",
    "sys": "reload_modules",
    "sysctl": "assign default_config get persist",
    "system": """get_boot_arch get_computer_description get_disable_keyboard_on_lock get_domain_workgroup get_hostname
        get_pending_component_servicing get_pending_computer_name get_pending_domain_join get_pending_file_rename
        get_pending_reboot get_pending_reboot_details get_pending_servermanager get_pending_update
        get_pending_windows_update get_remote_events get_remote_login get_restart_delay get_startup_disk get_subnet_name
        get_system_info halt init join_domain list_startup_disks lock poweroff restart set_boot_arch set_computer_desc
        set_computer_description set_computer_name set_disable_keyboard_on_lock set_domain_workgroup set_hostname
        set_reboot_required_witnessed set_remote_events set_remote_login set_restart_delay set_startup_disk
        set_subnet_name set_system_date set_system_date_time set_system_time shutdown shutdown_abort shutdown_hard sleep
        start_time_service stop_time_service unjoin_domain""",
    "test": "cross_test deprecation_warning missing_func raise_exception try tty",
    "timezone": """get_date get_time get_time_server get_using_network_time list list_zones set_date set_hwclock
        set_time set_time_server set_using_network_time set_zone""",
    "user": """add addgroup chfullname chgid chgroups chhome chhomephone chloginclass chother chprofile chroomnumber
        chshell chuid chworkphone current delete disable_auto_login enable_auto_login getUserSid get_auto_login
        get_user_sid removegroup rename setpassword update""",
}
"""Module to the functions of it that change the machine, or that nobody has found a reason to vouch for. Those of
``DRY_RUNS`` are here as well. Salt 3007 and 3008."""

REFUSED_MODULES = """
    acl acme alternatives ansible apache apcups apf appx aptly archive artifactory assistive asymmetric at auditpol
    augeas autoruns aws_sqs bamboohr baredoc bcache bgp bigip bluetooth boto3_elasticache boto3_elasticsearch
    boto3_route53 boto3_sns boto_apigateway boto_asg boto_cfn boto_cloudfront boto_cloudtrail boto_cloudwatch
    boto_cloudwatch_event boto_cognitoidentity boto_datapipeline boto_dynamodb boto_ec2 boto_efs boto_elasticache
    boto_elasticsearch_domain boto_elb boto_elbv2 boto_iam boto_iot boto_kinesis boto_kms boto_lambda boto_rds
    boto_route53 boto_s3 boto_s3_bucket boto_secgroup boto_sns boto_sqs boto_ssm boto_vpc bower bridge btrfs buildout
    cabal capirca cassandra_cql celery ceph certutil chassis chef chocolatey chronos chroot cimc ciscoconfparse cisconso
    cloud cmd composer consul container_resource cp cpan cron cryptdev csf cyg daemontools data datadog ddns debconf
    defaults desktop devinfo devmap dig dism django dnsmasq dnsutil docker dockercompose dockerng drac dracr drbd dsc
    dsc_resource eix elasticsearch eselect esxcluster esxdatacenter esxi esxvm etcd ethtool extfs firewall firewalld
    fmadm freebsd-update freebsd_update freezer gcp gem genesis gentoolkit git github glanceng glassfish glusterfs gnome
    google_chat gpg grafana4 grub guestfs hadoop haproxy hashutil heat helm hg highstate_doc http hue icinga2 idem ifttt
    ilo image imgadm incron influxdb influxdb08 infoblox ini inspector introspect iosconfig ip ipmi ipset iwtools jail
    jboss7 jboss7_cli jenkins jinja jira junos k8s kapacitor kerberos kernelpkg keyboard keychain keystone keystoneng
    keystore kubeadm kubernetes layman ldap ldap3 lgpo lgpo_reg libcloud_compute libcloud_dns libcloud_loadbalancer
    libcloud_storage license linux_service locate log logadm lvm lvs lxc lxd macdefaults machine macpackage makeconf
    mandrill marathon mattermost mdata memcached minion moby modjk mongodb monit moosefs mssql msteams munin mysql nacl
    nagios nagios_rpc namecheap_domains namecheap_domains_dns namecheap_domains_ns namecheap_ssl namecheap_users napalm
    napalm_bgp napalm_formula napalm_net napalm_ntp napalm_route napalm_snmp napalm_users napalm_yang net netacl
    netaddress netbox netmiko netscaler neutron neutronng nexus nfs3 nftables nginx nictagadm nix nova npm nspawn ntp
    nxos nxos_api nxos_upgrade omapi openscap openstack_config openstack_mng openvswitch opsgenie oracle osquery out
    pagerduty pagerduty_util pam panos parallels partition pcs pdbedit pecl peeringdb pf pip pkg_resource pkgbuild
    pkgutil portage_config ports postfix postgres poudriere power powercfg powerpath probes proxy psget publish puppet
    purefa purefb pushbullet pushover pyeapi pyenv qemu_img qemu_nbd quota rabbitmq raid rallydev random random_org rbac
    rbenv rdp rebootmgr redis reg rest_sample_utils restartcheck restconf ret riak route rpmbuild rsync runit rvm s3 s6
    salt_proxy saltcheck saltcloud scp scsi sdb seed selinux sensehat sensors serverdensity_device servicenow shadow
    shortcut slack slsutil smbios smtp snapper snmp softwareupdate solr solrcloud splunk splunk_search sqlite3 ssh
    ssh_pki statuspage supervisord svn swarm swift sysbench sysfs syslog_ng sysrc system_profiler task telegram
    telemetry temp test_virtual testinfra textfsm tls tomcat trafficserver transactional_update travisci tuned twilio
    udev uptime users uwsgi vagrant varnish vault vbox_guest vboxmanage vcenter victorops virt virtualenv vmadm vmctl
    vsphere webutil win_dacl win_dns_client win_event win_iis win_path win_pki win_servermanager win_smtp_server
    win_snmp win_wua winrepo wordpress wusa x509 xattr xfs xml xmpp yaml zabbix zenoss zfs zk_concurrency znc zoneadm
    zonecfg zookeeper zpool
"""
"""Modules of which no function is allowed, with their aliases."""

RUNS = {"apply", "call", "do", "runas", "sh"}
"""Names of functions that run any command or code; in custom modules, too, they count as dangerous."""
RUNS_BY_WORD = {"bash", "cmd", "command", "commands", "eval", "exec", "execute", "popen", "script", "shell", "spawn"}
"""Words that make a name such a one, wherever they stand in it; ``run`` does at its beginning."""


def dangerous(globs: Iterable[str]) -> list[str]:
    """Return the dangerous functions among those that these globs (``module.function``) allow, each once.

    Dangerous is any function of Salt that the guard refuses, or that only its arguments hold back, but for `NARROW`.
    """
    return list(dict.fromkeys(fun for glob in globs for fun in _dangerous(glob)))


def _dangerous(glob: str) -> Sequence[str]:
    module_glob, _, name_glob = glob.partition(".")
    known = [fun for fun in _restricted() if fnmatchcase(fun, glob)]
    known += [f"{module}.{name_glob}" for module in REFUSED_MODULES.split() if fnmatchcase(module, module_glob)]
    return known or ([glob] if _runs(name_glob) else [])


def _runs(name: str) -> bool:
    """Tell whether a function of this name (``run_command``, ``shellOut``) runs any command or code."""
    words = [word.lower() for word in re.findall("[A-Z]*[a-z]+|[A-Z]+", name)]
    return name in RUNS or words[:1] == ["run"] or not RUNS_BY_WORD.isdisjoint(words)


@cache
def _restricted() -> Sequence[str]:
    """Return each function that is refused, or that only its arguments hold back, but for the narrow ones."""
    limited = [*full_names({PLAIN_NAMES: OPERATE[PLAIN_NAMES]}), *LIMITED, *full_names(SINGLE_WORDS), "event.send"]
    return [fun for fun in dict.fromkeys([*full_names(CHANGE), *limited]) if fun not in NARROW]
