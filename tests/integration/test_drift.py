"""What happens to a machine past the guard is found and named; where nothing happened, nothing is said."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.estate import wait_for

from saltext.immutable.machines import commands, nspawn
from saltext.immutable.machines import machine as machines


@pytest.fixture(scope="module")
def fleet(estate, web) -> Iterator[list[str]]:
    """Machines with the page of the image; nothing at the end."""
    estate.salt_run("fleet.roll", "web")
    yield sorted(each["minion_id"] for each in estate.salt_run("fleet.status", "web").data["machines"])
    estate.salt_run("fleet.destroy", "web")


@pytest.fixture(scope="module")
def asked(estate, web) -> Any:
    """Return what asks one machine, or all, for its drift, with the digest that the master knows."""

    def ask(target: str, *words: str) -> dict[str, Any]:
        answers = estate.salt(target, "immutable.drift", f"digest={web['digest']}", *words).data
        return answers if "*" in target else answers[target]

    return ask


def drifted(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(item["kind"], item["what"], item["detail"]) for item in answer["drift"]]


def test_a_healthy_machine_has_no_drift(estate, fleet, asked, inside):
    """Not after its boot, not after a day's work: a restart, a dry run of all its states, what its timers start."""
    for minion_id in fleet:
        inside(minion_id, "systemctl restart nginx; systemd-tmpfiles --create --clean; logger hello")
        previewed = estate.salt(minion_id, "immutable.preview").data[minion_id]
        assert (previewed["drift"], previewed["states"] > 0) == ([], True)
    timers = "systemctl list-timers --all --plain --no-legend | grep -o '[a-z0-9_-]*[.]timer'"
    inside(fleet[0], f"for each in $({timers}); do timeout 20 systemctl start ${{each%.timer}}.service; done")
    for full in ("full=False", "full=True"):
        for answer in asked("web-*", full).values():
            assert (answer["drift"], answer["counts"], answer["proven"]) == ([], {}, True)
            assert answer["files"] > 20_000


@pytest.fixture
def writable(estate, booted) -> Iterator[Any]:
    """Return what runs a command on a machine whose whole root can be written to."""
    digest = estate.salt_run("image.bake", "writable").data["digest"]
    minion = {"id": "drift-writable", "master": "127.0.0.1"}
    place = {"bridge": estate.net.bridge, "subnet": estate.net.subnet}
    try:
        commands.launch(estate.host, {"minion_id": minion["id"], "image": digest, "minion": minion, **place})
        booted("drift-writable")
        yield machines.find(estate.host, "drift-writable").run
    finally:
        commands.destroy(estate.host, "drift-writable")


def test_a_machine_with_a_writable_root_is_healthy_too_until_it_is_changed(writable):
    ask = "from saltext.immutable import drift; import json; print(json.dumps(drift.check()))"
    assert json.loads(writable(["/opt/salt/bin/python", "-c", ask]).stdout)["drift"] == []
    change = """
        useradd eve; echo root:secret | chpasswd; usermod -aG sudo backup; systemctl mask apt-daily.timer
        dpkg --purge --force-all mount; cp /usr/bin/true /usr/bin/login; touch -h -d @1 /usr/bin/login
        printf '[Service]\\nExecStart=/usr/bin/sleep 60\\n[Install]\\nWantedBy=multi-user.target\\n' \\
            > /etc/systemd/system/own.service
        systemctl enable --now own
    """
    writable(["sh", "-c", change])
    answer = writable(["/opt/salt/bin/python", "-c", ask]).stdout
    found = [(item["kind"], item["what"]) for item in json.loads(answer)["drift"]]
    assert {
        ("user", "eve"),
        ("group", "sudo"),
        ("package", "mount:amd64"),
        ("service", "apt-daily.timer"),
        ("service", "own.service"),
        ("file", "/usr/bin/login"),
        ("file", "/usr/bin/mount"),
    } <= set(found)
    assert ("file", "/etc/passwd") not in found, "it is told line by line"
    assert "secret" not in answer and "changed: password" in answer and "(/etc/shadow)" in answer


# What is done, and what is found: kind, what, part of the detail.
ATTACKS = {
    "a file is added below /var": (
        "echo x > /var/lib/new",
        ("file", "/var/lib/new", "added"),
    ),
    "a file is changed": (
        "echo more >> /var/lib/dpkg/info/nginx.list",
        ("file", "/var/lib/dpkg/info/nginx.list", "content"),
    ),
    "a file of the same size is changed": (
        "printf '*' | dd of=/var/lib/dpkg/info/tar.list bs=1 conv=notrunc",
        ("file", "/var/lib/dpkg/info/tar.list", "of the same size"),
    ),
    "a file is removed": (
        "rm /var/lib/dpkg/info/dash.list",
        ("file", "/var/lib/dpkg/info/dash.list", "removed"),
    ),
    "a mode is changed": (
        "chmod 4755 /var/lib/dpkg/info/bash.list",
        ("file", "/var/lib/dpkg/info/bash.list", "mode 4755, was 0644"),
    ),
    "an owner is changed": (
        "chown 33 /var/lib/nginx",
        ("file", "/var/lib/nginx", "owner 33:"),
    ),
    "a capability is given": (
        "/opt/salt/bin/python -c \"import os; os.setxattr('/var/lib/dpkg/info/sed.list',"
        " 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))\"",
        ("file", "/var/lib/dpkg/info/sed.list", "security.capability"),
    ),
    "a program that gives rights is hidden in /tmp": (
        "cp /usr/bin/dash /tmp/.hidden && chmod 4755 /tmp/.hidden",
        ("file", "/tmp/.hidden", "mode 4755"),
    ),
    "a file becomes a link": (
        "ln -sf /etc/shadow /var/lib/dpkg/info/gzip.list",
        ("file", "/var/lib/dpkg/info/gzip.list", "it is a link and was a file"),
    ),
    "a package is installed": (
        "printf '\\nPackage: evil\\nStatus: install ok installed\\nArchitecture: all\\nVersion: 6.6\\n'"
        " >> /var/lib/dpkg/status",
        ("package", "evil:all", "added: 6.6"),
    ),
    "a table for cron is written": (
        "mkdir -p /var/spool/cron/crontabs && echo '* * * * * true' > /var/spool/cron/crontabs/root",
        ("file", "/var/spool/cron/crontabs/root", "added"),
    ),
    "a program runs from /tmp": (
        "mount -o remount,bind,exec /tmp; cp /usr/bin/sleep /tmp/evil && setsid /tmp/evil 600 >/dev/null 2>&1 &",
        ("process", "/tmp/evil", "not from the image"),
    ),
    "a program runs that was deleted": (
        "mount -o remount,bind,exec /tmp; cp /usr/bin/sleep /tmp/gone;"
        " setsid /tmp/gone 600 >/dev/null 2>&1 & sleep 0.3; rm /tmp/gone",
        ("process", "/tmp/gone (deleted)", "not from the image"),
    ),
    "a program runs from memory": (
        "setsid /opt/salt/bin/python -c \"import os; fd = os.memfd_create('hidden');"
        " os.write(fd, open('/usr/bin/sleep', 'rb').read()); os.execv(f'/proc/self/fd/{fd}', ['kworker', '600'])\""
        " >/dev/null 2>&1 &",
        ("process", "/memfd:hidden (deleted)", "not from the image"),
    ),
    "a script is interpreted from /run": (
        "printf 'sleep 600\\n' > /run/script.sh; setsid sh /run/script.sh >/dev/null 2>&1 &",
        ("process", "/usr/bin/dash", "/run/script.sh"),
    ),
    "a library is loaded from /var": (
        "mount -o remount,bind,exec /var;"
        " cp /usr/lib/x86_64-linux-gnu/libm.so.6 /var/tmp/evil.so;"
        " LD_PRELOAD=/var/tmp/evil.so setsid sleep 600 >/dev/null 2>&1 &",
        ("process", "/usr/bin/sleep", "/var/tmp/evil.so"),
    ),
    "a program runs under another's name, where only it sees that": (
        "mount -o remount,bind,exec /tmp; cp /usr/bin/sleep /tmp/other; setsid unshare --mount sh -c"
        " 'mount --bind /tmp/other /usr/bin/tail; exec tail 600' >/dev/null 2>&1 &",
        ("process", "/usr/bin/tail", "another file"),
    ),
    "something listens that no unit started": (
        "setsid /opt/salt/bin/python -m http.server 4444 >/dev/null 2>&1 &",
        ("socket", "tcp 0.0.0.0:4444", "no unit"),
    ),
    "something listens that Salt was made to start": (
        "echo $$ > /sys/fs/cgroup/systemd/system.slice/salt-minion.service/cgroup.procs 2>/dev/null"
        " || echo $$ > /sys/fs/cgroup/system.slice/salt-minion.service/cgroup.procs;"
        " setsid /opt/salt/bin/python -m http.server 4445 >/dev/null 2>&1 &",
        ("socket", "tcp 0.0.0.0:4445", "salt-minion.service listens"),
    ),
    "a transient unit runs": (
        "systemd-run --unit=odd sleep 600",
        ("service", "odd.service", "/run/systemd/transient/odd.service"),
    ),
    "a unit of /run runs": (
        "printf '[Service]\\nExecStart=/usr/bin/sleep 600\\n' > /run/systemd/system/own.service;"
        " systemctl daemon-reload; systemctl start own",
        ("service", "own.service", "/run/systemd/system/own.service"),
    ),
    "a unit gets a part in /run": (
        "mkdir -p /run/systemd/system/nginx.service.d;"
        " printf '[Service]\\nNice=1\\n' > /run/systemd/system/nginx.service.d/x.conf; systemctl daemon-reload",
        ("service", "nginx.service", "/run/systemd/system/nginx.service.d/x.conf"),
    ),
    "a service of the image is stopped": (
        "systemctl stop nginx",
        ("service", "nginx.service", "it is inactive"),
    ),
    "a directory is mounted over": (
        "mkdir -p /tmp/mine && mount --bind /tmp/mine /etc/nginx",
        ("mount", "/etc/nginx", "tmpfs"),
    ),
    "a file is mounted over": (
        "cp /usr/bin/true /tmp/id && mount --bind /tmp/id /usr/bin/id",
        ("mount", "/usr/bin/id", "tmpfs"),
    ),
    "the machine's own configuration is mounted over": (
        "echo '{}' > /tmp/conf && mount --bind /tmp/conf /etc/salt/minion.d/zzz-machine.conf",
        ("mount", "/etc/salt/minion.d/zzz-machine.conf", "2 file systems"),
    ),
    "another user is made by a mount": (
        "sed 's/^backup:x:34/backup:x:0/' /etc/passwd > /tmp/passwd && mount --bind /tmp/passwd /etc/passwd",
        ("mount", "/etc/passwd", "tmpfs"),
    ),
    "a program's first thread has ended": (
        "mount -o remount,bind,exec /var;"
        " cp $(readlink -f /opt/salt/bin/python) /var/tmp/pythree; setsid /var/tmp/pythree -c"
        ' "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[600]).start();'
        ' ctypes.CDLL(None).pthread_exit(None)" >/dev/null 2>&1 &',
        ("process", "/var/tmp/pythree", "not from the image"),
    ),
    "a process is hidden by a mount": (
        "setsid sleep 601 >/dev/null 2>&1 & mount --bind /tmp /proc/$!",
        ("mount", "/proc/", "tmpfs"),
    ),
    "somebody was logged in and has left": (
        "/opt/salt/bin/python -c \"import struct, time; print(end=''); open('/var/log/wtmp', 'ab').write("
        "struct.pack('=hxxi32s4s32s256shhiii4i20x', 7, 99, b'pts/7', b'7', b'mallory', b'198.51.100.7', 0, 0, 0,"
        " int(time.time()), 0, 0, 0, 0, 0))\"",
        ("login", "mallory on pts/7", "198.51.100.7"),
    ),
}
LOGIN = ("login", "root on ", "/usr/bin/bash")


@pytest.fixture(scope="module")
def attacked(estate, fleet, asked, inside) -> Iterator[dict[str, Any]]:
    """The answer of a machine to which all of it was done."""
    victim = fleet[0]
    for line, _ in ATTACKS.values():
        inside(victim, f"{line}\n")
    with shell_at_a_terminal(estate, victim):
        time.sleep(0.5)  # what was sent to the background has begun
        yield asked(victim)


class shell_at_a_terminal:
    """Somebody with a shell on a machine, who came past every login."""

    def __init__(self, estate: Any, minion_id: str) -> None:
        machine = machines.find(estate.host, minion_id)
        assert machine is not None
        self.command = ["nsenter", f"--target={nspawn.find_init(machine.cgroup)}", "--all", "--", "bash", "-i"]
        self.join = machine.cgroup.join_command()

    def __enter__(self) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *self.join, *self.command], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        wait_for(lambda: b"#" in os.read(self.ours, 1000))

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            os.close(self.ours)


@pytest.mark.parametrize("attack", [*ATTACKS, "somebody has a shell"])
def test_what_was_done_is_found(attacked, attack):
    kind, what, detail = ATTACKS[attack][1] if attack in ATTACKS else LOGIN
    found = [item for item in drifted(attacked) if item[0] == kind and item[1].startswith(what)]
    assert any(detail in item[2] for item in found), drifted(attacked)
    assert attacked["counts"][kind] >= 1


def test_it_is_told_whose_file_it_was(attacked):
    [item] = [item for item in attacked["drift"] if item["what"] == "/var/lib/nginx"]
    assert (item["owner"], item["layer"]) == ("nginx-common", "states of web")


def test_a_neighbour_is_as_healthy_as_before(attacked, fleet, asked):
    assert asked(fleet[1])["drift"] == []


def test_what_looks_the_same_is_found_by_a_full_read(fleet, asked, inside):
    """Same size, same times: only the content is another."""
    victim, place = fleet[2], "/var/lib/dpkg/info/sed.list"
    inside(victim, f"touch -r {place} /tmp/t; printf '*' | dd of={place} bs=1 conv=notrunc; touch -r /tmp/t {place}")
    assert asked(victim)["drift"] == []
    assert drifted(asked(victim, "full=True")) == [("file", place, "changed: content (of the same size)")]


def test_a_machine_whose_processes_are_hidden_is_not_clean(fleet, asked, inside):
    inside(fleet[1], "mkdir /tmp/proc; cp /proc/mounts /tmp/proc; mount --bind /tmp/proc /proc")
    assert {("mount", "/proc"), ("process", "/proc")} <= {item[:2] for item in drifted(asked(fleet[1]))}


def test_a_forged_manifest_is_found(estate, web, fleet, asked, inside):
    """Without the file that was added, and sealed again: all of it agrees with itself, and not with the master."""
    victim = fleet[2]
    forge = """
        cp -r /etc/immutable /tmp/forged && cd /tmp/forged
        for each in manifest/*; do zcat $each | grep -q dpkg/info/sed.list && old=$(basename $each .gz); done
        zcat manifest/$old.gz | grep -v dpkg/info/sed.list | gzip > new
        hash=$(zcat new | sha256sum | cut -c1-64)
        mv new manifest/$hash.gz
        sed -i s/$old/$hash/ image.json
        image=$(sha256sum < image.json | cut -c1-64)
        sed -i 's/"image": "[0-9a-f]*"/"image": "'$image'"/' seal.json
        mount --bind /tmp/forged /etc/immutable && echo $image
    """
    forged = inside(victim, forge)
    alone = estate.salt(victim, "immutable.drift").data[victim]
    assert (alone["proven"], alone["image"]) == (False, forged)
    assert [item[0] for item in drifted(alone) if item[1] != "/var/lib/dpkg/info/sed.list"] == ["mount"]
    asked_by_the_master = asked(victim)
    assert not asked_by_the_master["proven"]
    assert [item[:2] for item in drifted(asked_by_the_master)] == [
        ("manifest", "/etc/immutable/image.json"),
        ("mount", "/etc/immutable"),
    ]
    spoil = "for each in /tmp/forged/manifest/*; do echo x > $each; done"
    inside(victim, f"umount /etc/immutable; {spoil}; mount --bind /tmp/forged/manifest /etc/immutable/manifest")
    assert drifted(asked(victim))[0][0] == "manifest"
    inside(victim, "umount /etc/immutable/manifest; : > /tmp/empty; mount --bind /tmp/empty /etc/immutable/seal.json")
    damaged = estate.salt(victim, "immutable.drift", check=False)
    assert damaged.returncode == 1 and "seal.json is damaged" in damaged.stdout
