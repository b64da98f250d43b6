"""Scrubbing removes all that belongs to the machine that baked, and touches nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saltext.immutable.builder.finish.scrub import scrub


def put(tree: Path, path: str, text: str = "x") -> Path:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("etc/salt/pki/minion/minion.pem", id="minion key in its usual place"),
        pytest.param("var/lib/salt/pki/minion/minion.pem", id="minion key where the pack keeps it"),
        pytest.param("etc/salt/minion_id", id="minion id"),
        pytest.param("etc/hostname", id="host name"),
        pytest.param("var/lib/immutable/etc/ssh/ssh_host_rsa_key", id="ssh host key that the bake's own sshd got"),
        pytest.param("var/lib/systemd/random-seed", id="random seed"),
        pytest.param("var/lib/systemd/credential.secret", id="credential secret"),
        pytest.param("var/lib/dbus/machine-id", id="machine id of dbus"),
        pytest.param("var/log/journal/0123/system.journal", id="journal"),
        pytest.param("var/log/salt/minion", id="salt's log"),
        pytest.param("var/log/cron.log", id="a log that a syslog daemon makes with its first message"),
        pytest.param("var/cache/salt/minion/files/base/secret.sls", id="salt's cache, the pillar's too"),
        pytest.param("tmp/.hidden/file", id="hidden temporary file"),
        pytest.param("var/tmp/file", id="temporary file"),
        pytest.param("run/lock/file", id="run"),
        pytest.param("root/.cache/pip/http", id="root's cache"),
        pytest.param("root/.bash_history", id="root's history"),
        pytest.param("var/lib/apt/lists/deb_Packages", id="package lists"),
        pytest.param("var/cache/apt/archives/nginx.deb", id="downloaded packages"),
    ],
)
def test_removed(tmp_path, path):
    put(tmp_path, path)
    scrub(tmp_path)
    assert not (tmp_path / path).exists()


@pytest.mark.parametrize(
    "path",
    [
        "etc/salt/minion.d/team.conf",
        "etc/ssh/sshd_config",
        "etc/ssh/ssh_config.d/team.conf",
        "var/lib/dpkg/status",
        "usr/lib/immutable/extension_modules/modules/shopinfo.py",
        "var/spool/cron/crontabs/root",
        "root/.ssh/authorized_keys",
    ],
)
def test_kept(tmp_path, path):
    put(tmp_path, path)
    scrub(tmp_path)
    assert (tmp_path / path).read_text() == "x"


@pytest.mark.parametrize("name", ["ssh_host_ed25519_key", "ssh_host_rsa_key.pub"])
def test_ssh_host_keys_become_links_to_the_machines_own(tmp_path, name):
    put(tmp_path, f"etc/ssh/{name}", "private")
    scrub(tmp_path)
    assert os.readlink(tmp_path / "etc/ssh" / name) == f"/var/lib/immutable/etc/ssh/{name}"


def test_logs_are_emptied_and_keep_their_mode(tmp_path):
    log = put(tmp_path, "var/log/nginx/access.log", "GET /")
    log.chmod(0o640)
    scrub(tmp_path)
    assert (log.read_text(), log.stat().st_mode & 0o777) == ("", 0o640)


@pytest.mark.parametrize("there", [True, False], ids=["becomes empty", "is not made where the layer has none"])
def test_machine_id(tmp_path, there):
    if there:
        put(tmp_path, "etc/machine-id", "0123456789abcdef")
    scrub(tmp_path)
    assert (tmp_path / "etc/machine-id").exists() is there
    assert not there or (tmp_path / "etc/machine-id").read_text() == ""


@pytest.mark.parametrize(
    ("link", "inside"),
    [
        pytest.param("var/tmp", "file", id="var/tmp"),
        pytest.param("tmp", "file", id="tmp"),
        pytest.param("var/cache", "salt/minion/proc/job", id="a directory above"),
        pytest.param("var/log", "host.log", id="var/log"),
        pytest.param("run", "file", id="run"),
        pytest.param("etc/salt", "minion_id", id="etc/salt"),
    ],
)
def test_a_link_in_the_image_never_leads_to_the_builders_own_files(tmp_path, link, inside):
    """A state may make /var/tmp a link to /tmp. On the builder that link leads to the builder's own /tmp."""
    precious = put(tmp_path / "builder", inside, "precious")
    link_path = tmp_path / "fs" / link
    link_path.parent.mkdir(parents=True, exist_ok=True)
    link_path.symlink_to(tmp_path / "builder")
    scrub(tmp_path / "fs")
    assert precious.read_text() == "precious"
    assert link_path.is_symlink()


def test_a_link_is_removed_and_its_target_is_not(tmp_path):
    precious = put(tmp_path, "builder/key", "precious")
    (tmp_path / "fs/tmp").mkdir(parents=True)
    (tmp_path / "fs/tmp/link").symlink_to(precious)
    (tmp_path / "fs/tmp/folder").symlink_to(precious.parent)
    scrub(tmp_path / "fs")
    assert precious.read_text() == "precious"
    assert not list((tmp_path / "fs/tmp").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
def test_a_whiteout_stays(tmp_path):
    (tmp_path / "tmp").mkdir()
    os.mknod(tmp_path / "tmp/gone", 0o020000, 0)
    scrub(tmp_path)
    assert (tmp_path / "tmp/gone").is_char_device()


def test_the_date_in_a_crontab_is_fixed_and_its_head_keeps_three_lines(tmp_path):
    head = "# DO NOT EDIT THIS FILE - edit the master and reinstall.\n"
    table = "# (Cron version -- x)\n# (it was installed on purpose)\n0 5 * * * backup\n"
    file = put(tmp_path, "var/spool/cron/crontabs/root", f"{head}# (/tmp/x1 installed on Mon Nov 23 2026)\n{table}")
    scrub(tmp_path)
    assert "Nov 23" not in file.read_text()
    assert file.read_text() == f"{head}# (- installed on Thu Jan  1 00:00:00 1970)\n{table}"


@pytest.mark.parametrize(
    ("path", "kind", "fixed"),
    [
        ("swapfile", "SWAPSPACE2", True),
        ("srv/[1] swap", "SWAPSPACE2", False),
        ("srv/[1]", "SWAPSPACE2", True),
        ("swap.txt", "no swap...", False),
    ],
)
def test_a_swap_file_has_the_same_id_each_time(tmp_path, path, kind, fixed):
    put(tmp_path, "etc/fstab", "none none swap\n/srv/[1] none swap defaults 0 0\n/swapfile none swap\n")
    contents = []
    for random in b"ab":
        file = put(tmp_path, path, "")
        file.write_bytes(bytes(1036) + bytes([random]) * 16 + bytes(3034) + kind.encode() + b"rest")
        scrub(tmp_path)
        contents.append(file.read_bytes())
    assert (contents[0] == contents[1]) is fixed
    assert len(contents[0]) == 4100 and contents[0].endswith(b"rest")


@pytest.mark.parametrize("path", ["etc/iptables/rules.v4", "etc/iptables.rules", "etc/sysconfig/ip6tables"])
def test_saved_rules_of_a_firewall_have_neither_date_nor_counters(tmp_path, path):
    rules = "# my own, done on Tue\n{}*filter\n:INPUT DROP [{}]\n[4:90] -A INPUT -j LOG\nCOMMIT\n{}"
    head, end = "# Generated by iptables-save v1.8.9 (nf_tables) on ", "# Completed on "
    when, fixed = "Tue Dec  1 03:00:50 2026\n", "Thu Jan  1 00:00:00 1970\n"
    file = put(tmp_path, path, rules.format(head + when, "18:1530", end + when))
    scrub(tmp_path)
    assert file.read_text() == rules.format(head + fixed, "0:0", end + fixed)


@pytest.mark.parametrize(
    ("line", "then"),
    [
        pytest.param("web:!:20780:0:99999:7:::", "web:!:18262:0:99999:7:::", id="made today"),
        pytest.param("web:$6$x:20780:0::7:::", "web:$6$x:18262:0::7:::", id="no maximum age"),
        pytest.param("web:$6$x:20780:0:90:7:::", "web:$6$x:20780:0:90:7:::", id="a password that expires"),
        pytest.param("web:$6$x:0:0:99999:7:::", "web:$6$x:0:0:99999:7:::", id="to be changed at the first login"),
        pytest.param("web:!::0:99999:7:::", "web:!::0:99999:7:::", id="no day"),
    ],
)
def test_the_day_of_a_password_change_is_replaced(tmp_path, line, then):
    file = put(tmp_path, "etc/shadow", f"root:*:20780:0:99999:7:::\n{line}\n")
    scrub(tmp_path)
    assert file.read_text() == f"root:*:18262:0:99999:7:::\n{then}\n"
