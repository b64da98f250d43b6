"""Drift of accounts, packages, mounts, processes, sockets, services and logins, from data alone."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from saltext.immutable.drift import accounts
from saltext.immutable.drift.item import Item
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.drift.running import logins, mounts, processes, services, sockets
from saltext.immutable.drift.running.logins import Login
from saltext.immutable.drift.running.mounts import Mount
from saltext.immutable.drift.running.processes import Process
from saltext.immutable.drift.running.sockets import Listener

# Accounts and packages

PASSWD = b"root:x:0:0:root:/root:/bin/bash\nwww:x:33:33::/var/www:/usr/sbin/nologin\n"
SHADOW = b"root:*:19000:0:99999:7:::\nwww:$y$old:19000:0:99999:7:::\n"
GROUP = b"root:x:0:\nsudo:x:27:\n"


@pytest.mark.parametrize(
    ("path", "before", "now", "detail"),
    [
        pytest.param(accounts.PASSWD, PASSWD, PASSWD, [], id="nothing"),
        pytest.param(
            accounts.PASSWD, PASSWD, PASSWD + b"eve:x:0:0::/:/bin/sh\n", [("user", "eve", "added (/etc/passwd)")],
            id="a user is added",
        ),
        pytest.param(
            accounts.PASSWD, PASSWD, PASSWD.splitlines(keepends=True)[0], [("user", "www", "removed (/etc/passwd)")],
            id="a user is removed",
        ),
        pytest.param(
            accounts.PASSWD, PASSWD, PASSWD.replace(b":33:33:", b":0:33:"),
            [("user", "www", "changed: uid 0, was 33 (/etc/passwd)")],
            id="a user becomes root",
        ),
        pytest.param(
            accounts.PASSWD, PASSWD, PASSWD + b"www:x:0:0::/:/bin/sh\n",
            [("user", "www", "changed: another number of fields (/etc/passwd)")],
            id="a name stands there twice",
        ),
        pytest.param(
            accounts.SHADOW, SHADOW, SHADOW.replace(b"$y$old", b"$y$new"),
            [("user", "www", "changed: password (/etc/shadow)")],
            id="a password, which is never shown",
        ),
        pytest.param(
            accounts.GROUP, GROUP, GROUP.replace(b"27:", b"27:www"),
            [("group", "sudo", "changed: members www, was none (/etc/group)")],
            id="a member",
        ),
        pytest.param(
            accounts.PASSWD, PASSWD, b"\xff\n" + PASSWD, [("user", "\ufffd", "added (/etc/passwd)")], id="junk"
        ),
    ],
)  # fmt: skip
def test_accounts_are_compared_line_by_line(path, before, now, detail):
    assert [item[:3] for item in accounts.COMPARE[path](before, now)] == detail


def status(**versions: str) -> bytes:
    stanza = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n"
    return "\n".join(stanza.format(name, version) for name, version in versions.items()).encode()


def test_packages_are_compared_by_name_and_version():
    before, now = status(tar="1.0", sed="4.8", gone="1"), status(tar="1.1", sed="4.8", nc="9")
    assert [item[:3] for item in accounts.COMPARE[accounts.STATUS](before, now)] == [
        ("package", "gone:amd64", "removed: was 1"),
        ("package", "nc:amd64", "added: 9"),
        ("package", "tar:amd64", "changed: 1.1, was 1.0"),
    ]


# Mounts

HOST = "254:0 /machines/web/zzz-machine.conf /etc/salt/minion.d/zzz-machine.conf ro shared:1 - ext4 /dev/vda rw"
ALONE = [
    "94 216 0:67 / /proc rw - proc proc rw",
    "216 196 0:42 / / ro,relatime shared:16 - overlay overlay ro",
    "231 216 0:63 / /var rw - overlay overlay rw,lowerdir=x",
    "217 216 0:57 / /tmp rw - tmpfs tmpfs rw",
    "218 216 0:58 / /sys/kernel ro master:1 - sysfs sysfs ro",
    "219 216 0:59 / /sys/fs/cgroup ro - tmpfs tmpfs ro",
    "220 219 0:60 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw",
    "221 216 0:67 /sys /proc/sys ro - proc proc rw",
    "222 221 0:57 /.#proc-sys-kernel-random-boot-id7//deleted /proc/sys/kernel/random/boot_id ro - tmpfs tmpfs rw",
    "223 221 0:57 /.#proc-sys-kernel-random-boot-id7//deleted /proc/sys/kernel/random/boot_id rw - tmpfs tmpfs rw",
    "224 216 0:57 /null /proc/kcore rw - tmpfs tmpfs rw",
    "225 216 0:57 /machine-id /etc/machine-id rw - tmpfs tmpfs rw",
    "226 216 0:61 / /run rw - tmpfs tmpfs rw",
    "226 216 0:64 / /run/lock rw - tmpfs tmpfs rw",
    "227 216 0:62 / /run/user/1000 rw - tmpfs tmpfs rw",
    "228 216 0:62 net:[4026532255] /run/netns/blue rw - nsfs nsfs rw",
    "229 216 254:0 /machines/web/hosts /etc/hosts ro - ext4 /dev/vda rw",
    "229 216 254:2 / /srv/volumes/7 rw - ext4 /dev/vdc rw",
    "229 216 0:48 / /dev/shm rw - tmpfs tmpfs rw",
    "230 216 0:30 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw",
    "231 230 0:92 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw",
    "232 216 254:3 /own/hostname /etc/hostname ro - ext4 /dev/vda3 rw",
    f"230 216 {HOST}",
    "90 1 254:1 / /srv/my\\040data rw - ext4 /dev/vdb rw",
    "91 1 254:1 / /opt/a-b rw - ext4 /dev/vdb rw",
]


def found(lines: list[str], writable=("/var",), planned=("/srv/my data", "/opt/a-b")) -> list[str]:
    here = [mounts._parsed(line) for line in lines]
    declared = Mutable(["/srv/volumes"], ())
    return [item.what for item in mounts.drift(here, Mutable(["/srv/volumes"]), declared, writable, planned)]


def test_what_a_machine_mounts_by_itself_is_no_drift():
    assert found(ALONE) == []


@pytest.mark.parametrize(
    ("line", "point"),
    [
        pytest.param("1 1 0:57 /x /etc/nginx rw - tmpfs tmpfs rw", "/etc/nginx", id="over a directory"),
        pytest.param("1 1 0:63 /lib/x /usr/bin/id rw - overlay overlay rw", "/usr/bin/id", id="over a program"),
        pytest.param("1 1 0:70 / / rw - tmpfs tmpfs rw", "/", id="over the root"),
        pytest.param("1 1 0:70 / /var rw - overlay overlay rw", "/var", id="over /var once more"),
        pytest.param("1 1 0:70 /c /etc/salt/minion.d/zzz-machine.conf rw - tmpfs t rw",
                     "/etc/salt/minion.d/zzz-machine.conf", id="over the machine's own file"),
        pytest.param("1 1 0:70 / /proc rw - proc proc rw", "/proc", id="over /proc"),
        pytest.param("1 1 0:57 / /proc/77 rw - tmpfs tmpfs rw", "/proc/77", id="over a process"),
        pytest.param("1 1 0:57 / /proc/sys rw - tmpfs tmpfs rw", "/proc/sys", id="over settings of the kernel"),
        pytest.param("1 1 0:67 /77/stat /proc/1/stat rw - proc proc rw", "/proc/1/stat", id="of another process"),
        pytest.param("1 1 0:57 /f /proc/sys/kernel/osrelease rw - tmpfs tmpfs rw", "/proc/sys/kernel/osrelease",
                     id="over one setting"),
        pytest.param("1 1 0:57 / /proc/net rw - tmpfs tmpfs rw", "/proc/net", id="over the list of connections"),
        pytest.param("1 1 0:57 / /proc/net rw - debugfs none rw", "/proc/net", id="something else of the kernel"),
        pytest.param("1 1 0:57 / /sys/class rw - tmpfs tmpfs rw", "/sys/class", id="over devices"),
        pytest.param("1 1 0:57 /h /etc/hosts rw - tmpfs tmpfs rw", "/etc/hosts", id="over names, once more"),
        pytest.param("1 1 0:57 /h /etc/hostname rw - tmpfs tmpfs rw", "/etc/hostname", id="over the name"),
        pytest.param("1 1 0:57 / /var/lib/salt rw - tmpfs tmpfs rw", "/var/lib/salt", id="over keys"),
        pytest.param("1 1 0:57 / /run/immutable rw - tmpfs tmpfs rw", "/run/immutable", id="over the guard's counts"),
        pytest.param("1 1 0:57 / /run/systemd/system rw - tmpfs tmpfs rw", "/run/systemd/system", id="over units"),
        pytest.param("1 1 0:57 / /tmp rw - tmpfs tmpfs rw", "/tmp", id="over /tmp once more"),
        pytest.param("1 1 0:4 mnt:[4026532255] /run/kept rw - nsfs nsfs rw", "/run/kept", id="a namespace, kept"),
        pytest.param("1 1 0:57 /run/a\v/run/z\vb /proc/71 rw - tmpfs tmpfs rw", "/proc/71", id="other white space"),
        pytest.param("1 1 0:57 /a\rb /proc/71 rw - tmpfs tmpfs rw", "/proc/71", id="with a carriage return"),
        pytest.param("1 1 8:1 /old /proc/sys/kernel/random/boot_id rw - ext4 /dev/sda rw",
                     "/proc/sys/kernel/random/boot_id", id="an old boot id"),
        pytest.param("1 1 0:57 / /var/spool/cron rw - tmpfs tmpfs rw", "/var/spool/cron", id="over cron's tables"),
    ],
)  # fmt: skip
def test_a_mount_over_the_image_is_found(line, point):
    assert found([*ALONE, line]) == [point]


def test_another_kind_of_mount_at_a_known_place_is_found():
    proc = ALONE[0]
    assert found([proc, "1 1 0:70 / /var rw - tmpfs tmpfs rw"]) == ["/var"]
    assert found([proc, "1 1 0:63 / /var rw - overlay overlay rw"], writable=()) == ["/var"]
    assert found([proc, f"1 1 {HOST}".replace("ext4", "overlay")]) == ["/etc/salt/minion.d/zzz-machine.conf"]
    assert found([]) == found(["1 1 0:70 / /proc rw - tmpfs tmpfs rw"]) == ["/proc"]


IN_UNIT = [
    "1 1 0:42 / / ro shared:16 - overlay overlay ro",
    "1 1 0:42 /etc /etc ro - overlay overlay ro",
    "1 1 0:63 /lib/app /var/lib/app rw - overlay overlay rw",
    "1 1 0:75 / /var/lib/private ro - tmpfs tmpfs ro",
    "1 1 0:63 /lib/private/own /var/lib/private/own rw - overlay overlay rw",
    "1 1 0:63 /lib/private/own /var/lib/own rw - overlay overlay rw",
    "1 1 0:57 /systemd-private-2f-app.service-x/tmp /tmp rw - tmpfs tmpfs rw",
    "1 1 0:63 /tmp/systemd-private-2f-app.service-x/tmp /var/tmp rw - overlay overlay rw",
    "1 1 0:70 / /home ro - tmpfs tmpfs ro",
    "1 1 0:71 / /dev rw - tmpfs tmpfs rw",
    "1 1 0:72 / /dev/pts rw - devpts devpts rw",
    "1 1 0:72 /null /dev/null rw - devtmpfs udev rw",
    "1 1 0:67 / /proc rw - proc proc rw",
    "1 1 0:99 / /proc rw - proc proc rw,hidepid=2",
    "1 1 0:67 /sys /proc/sys ro - proc proc rw",
    "1 1 0:61 /systemd/inaccessible/dir /root ro - tmpfs tmpfs rw",
    "1 1 0:80 / /run/credentials/app.service ro - ramfs ramfs rw",
    "1 1 0:62 /systemd/propagate/app.service /run/systemd/incoming ro - tmpfs tmpfs rw",
]


@pytest.mark.parametrize(
    ("line", "point"),
    [
        pytest.param("", "", id="what systemd mounts for a unit"),
        pytest.param("1 1 0:57 / /etc rw - tmpfs tmpfs rw", "/etc", id="over a directory"),
        pytest.param("1 1 0:57 /p /etc/passwd rw - tmpfs tmpfs rw", "/etc/passwd", id="over a file"),
        pytest.param("1 1 0:42 /usr/bin/sh /usr/bin/id rw - overlay o rw", "/usr/bin/id", id="over another"),
        pytest.param("1 1 0:57 / /proc/sys rw - tmpfs tmpfs rw", "/proc/sys", id="over settings"),
        pytest.param("1 1 0:90 / / rw - tmpfs tmpfs rw", "/", id="another root"),
        pytest.param("1 1 0:63 /lib/x /dev/shm/y rw - overlay overlay rw", "/dev/shm/y", id="into a temporary folder"),
        pytest.param("1 1 0:57 /systemd-private-2f-app.service-x/tmp/evil /usr/lib/x.so rw - tmpfs tmpfs rw",
                     "/usr/lib/x.so", id="from a private folder"),
        pytest.param("1 1 0:57 /x/systemd/inaccessible/reg /usr/bin/id rw - tmpfs tmpfs rw", "/usr/bin/id",
                     id="that looks like nothing"),
        pytest.param("1 1 0:63 /lib/private/evil /var/lib/app2 rw - overlay overlay rw", "/var/lib/app2",
                     id="another's state"),
        pytest.param("1 1 0:57 /evil /tmp rw - tmpfs tmpfs rw", "/tmp", id="another folder as its own"),
        pytest.param("1 1 0:91 / /srv/volumes/9 rw - ext4 /dev/vdc rw", "", id="declared"),
    ],
)
@pytest.mark.parametrize("mounting", [False, True])
def test_a_mount_for_some_processes_alone_is_found(line, point, mounting):
    own = [mounts._parsed(each) for each in [*IN_UNIT, line] if each]
    of_init = [mounts._parsed(each) for each in ALONE]
    declared = Mutable(["/srv/volumes"], ())
    found = mounts.drift_of_namespaces([mounts.Namespace(7, own)], of_init, declared, lambda pid: mounting)
    assert [item.what for item in found] == ([point] if point and not mounting else [])


def test_each_namespace_is_read_once_and_those_of_init_and_of_this_process_are_not(tmp_path):
    threads = {"1": "a", "self": "b", "5": "a", "6": "b", "7": "c", "8": "c", "9": "d", "5/task/55": "e"}
    for pid, name in threads.items():
        thread = tmp_path / (pid if "task" in pid or pid in ("1", "self") else f"{pid}/task/{pid}")
        (thread / "ns").mkdir(parents=True)
        (thread / "ns/mnt").symlink_to(f"mnt:[{name}]")
        (thread / "mountinfo").write_text(ALONE[1] + "\n")
    (tmp_path / "10").mkdir()
    found = mounts.scan_namespaces(str(tmp_path), [5, 6, 7, 8, 9, 10])
    assert len(found) == 3 and {each.pid for each in found} & {7, 8} and {5, 9} < {each.pid for each in found}
    assert all(each.mounts == [mounts._parsed(ALONE[1])] for each in found)


def test_local_file_systems_are_compared_where_they_are_expected(tmp_path):
    (tmp_path / "file").touch()
    here = [
        Mount(str(tmp_path), "ext4", "/", "/dev/vdb"),
        Mount(str(tmp_path / "file"), "ext4", "/", "/dev/vdb"),
        Mount("/", "nfs4", "/", "server:/"),
        Mount("/usr", "ext4", "/", "/dev/vdc"),
    ]
    assert mounts.to_compare(here, {str(tmp_path), str(tmp_path / "file"), "/"}) == {str(tmp_path)}


def test_programs_with_rights_are_searched_for_where_they_could_be_put(tmp_path):
    place = str(tmp_path)
    here = [
        Mount("/", "overlay", "/", "overlay", "0:1", "rw"),
        Mount("/dev/shm", "tmpfs", "/", "tmpfs", "0:2", "rw,nosuid,nodev"),
        Mount("/dev", "tmpfs", "/", "tmpfs", "0:3", "rw,nosuid"),
        Mount("/proc/acpi", "tmpfs", "/", "tmpfs", "0:4", "rw"),
        Mount("/run/file", "tmpfs", "/", "tmpfs", "0:4", "rw"),
        Mount("/srv", "nfs4", "/", "server:/", "0:4", "rw"),
    ]
    assert mounts.to_search(here) == {"/dev/shm"}
    assert mounts.to_search([Mount(place, "ramfs", "/", "x", "0:5", "rw,nosuid,nodev")]) == {place}
    volume = Mount(place, "ext4", "/", "/dev/vdb", "8:0", "rw,nosuid,nodev")
    assert mounts.to_search([volume]) == set(), "rights have no effect there, and it may be large"
    assert mounts.to_search([volume._replace(options="rw,nosuid")]) == {place}
    assert mounts.to_search([volume._replace(kind="tmpfs")]) == {place}


def test_mounts_are_planned_by_fstab_and_units():
    fstab = "# none\nUUID=1 / ext4 defaults 0 1\nUUID=2 /srv/my\\040data ext4 defaults 0 2\nbroken\n"
    assert mounts.planned(fstab, ["opt-a\\x2db.mount", "x.service"]) == {"/", "/srv/my data", "/opt/a-b"}


def test_what_only_init_sees_counts_too(tmp_path):
    for pid, lines in (("self", ALONE[1:2]), ("1", [*ALONE[1:2], "1 1 0:57 / /etc rw - tmpfs tmpfs rw"])):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "mountinfo").write_text("\n".join(lines) + "\n")
    root = Mount("/", "overlay", "/", "overlay", "0:42", "ro,relatime")
    hidden = Mount("/etc", "tmpfs", "/", "tmpfs", "0:57", "rw")
    assert sorted(mounts.scan(str(tmp_path))) == [root, hidden]


# Processes

OURS = {"/usr/bin/python3.11", "/usr/sbin/nginx", "/usr/bin/salt-minion", "/usr/lib/libc.so.6", "/usr/bin/bash"}


def process(pid: int = 7, exe: str = "/usr/sbin/nginx", same: bool = True, **more) -> Process:
    return Process(pid, exe, same, more.pop("command", exe), **more)


@pytest.mark.parametrize(
    ("ran", "detail"),
    [
        pytest.param(process(), None, id="a program of the image"),
        pytest.param(process(exe="/tmp/x"), "not from the image", id="a program of somebody"),
        pytest.param(process(exe="/usr/sbin/nginx (deleted)"), "not from the image", id="a program that was replaced"),
        pytest.param(process(same=False), "another file", id="a name that leads elsewhere"),
        pytest.param(process(exe="", same=False), "cannot be seen", id="a process that hides"),
        pytest.param(
            process(exe="/usr/bin/python3.11", script="/usr/bin/salt-minion"), None, id="a script of the image"
        ),
        pytest.param(process(exe="/usr/bin/python3.11", script="/tmp/x.py"), "interprets /tmp/x.py", id="a script"),
        pytest.param(process(maps=frozenset({"/usr/lib/libc.so.6"})), None, id="a library of the image"),
        pytest.param(process(maps=frozenset({"/tmp/x.so"})), "code from /tmp/x.so", id="a library of somebody"),
    ],
)
def test_what_runs_is_from_the_image_or_drift(ran, detail):
    items = [item for _, item in processes.drift([ran], OURS.__contains__)]
    assert [item.kind for item in items] == (["process"] if detail else [])
    assert not detail or detail in items[0].detail and "pid 7" in items[0].detail


def test_a_process_is_explained_by_a_unit_of_the_image_or_is_the_check_itself():
    """It was started by hand, from a session, or below a unit that somebody added."""
    running = [
        process(1, unit="init.scope"),
        process(5, unit="nginx.service", parent=1),
        process(20, unit="session-3.scope", parent=1),
        process(21, unit="session-3.scope", parent=20),
        process(22, unit="session-3.scope", parent=21),
        process(30, unit="", parent=1, exe="/usr/bin/bash"),
        process(31, unit="odd.service", parent=1),
    ]
    of_image = {"init.scope", "nginx.service"}
    found = list(processes.without_unit(running, lambda each: each.unit in of_image, own=22))
    assert [each.pid for each, _ in found] == [30, 31], "20 and 21 called the check"
    assert found[0][1][:3] == ("process", "/usr/bin/bash", "it runs in no unit (pid 30: /usr/bin/bash)")
    assert "in odd.service, which is no unit of the image" in found[1][1].detail
    assert not list(processes.without_unit(running, lambda each: True, own=22))
    looped = [process(8, parent=9), process(9, parent=8)]
    assert not list(processes.without_unit(looped, lambda each: False, own=8)), "ids were used again meanwhile"


@pytest.fixture
def proc(tmp_path) -> Path:
    """A /proc with one process, 42: an interpreter with a script."""
    root, place = tmp_path / "root", tmp_path / "proc" / "42"
    place.mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/bash").touch()
    (place / "stat").write_text("42 (a (b) c) S 1 42 42 34823 42 4194304 0 0 0\n")
    (place / "cmdline").write_text("bash\0-x\0script.sh\0")
    (place / "cgroup").write_text("9:name=systemd:/system.slice/odd.service/inner\n0::/system.slice/other.service\n")
    (place / "maps").write_text(
        "00-10 r-xp 00000000 fe:00 1 /usr/bin/bash\n10-20 r-xp 00000000 fe:00 2 /usr/lib/a b.so\n"
        "20-30 rw-p 00000000 fe:00 3 /var/data\n30-40 r-xp 00000000 00:00 0 [vdso]\n40-50 r-xp 00000000 00:00 0\n"
    )
    (tmp_path / "script.sh").touch()
    (place / "cwd").symlink_to(tmp_path)
    (place / "exe").symlink_to("/usr/bin/bash")
    return tmp_path


def scan(proc: Path) -> list[Process]:
    return processes.scan(str(proc / "proc"), str(proc / "root"))


def test_a_process_is_read_from_proc(proc):
    [seen] = scan(proc)
    assert (seen.pid, seen.exe, seen.command, seen.unit) == (42, "/usr/bin/bash", "bash -x script.sh", "odd.service")
    assert (seen.tty, seen.script, seen.maps) == (34823, str(proc / "script.sh"), {"/usr/lib/a b.so"})
    assert logins._terminal(seen.tty) == "pts/7"


def test_a_process_executes_the_file_of_that_name_or_another_one(proc):
    (proc / "proc/42/exe").unlink()
    (proc / "proc/42/exe").symlink_to(proc / "root/usr/bin/bash")  # the kernel's link leads to the file itself
    os.rename(proc / "root", proc / "away")
    os.symlink(proc / "away", proc / "root")
    assert processes._same(str(proc / "proc/42/exe"), "/", str(proc / "root/usr/bin/bash"))
    (proc / "other").touch()
    assert not processes._same(str(proc / "proc/42/exe"), "/", str(proc / "other"))


@pytest.mark.parametrize(
    ("exe", "words", "script"),
    [
        ("bash", "bash gone.sh", "gone.sh (deleted)"),
        ("bash", "bash -c script.sh", ""),
        ("bash", "bash -ec script.sh", ""),
        ("bash", "-bash", "<stdin>"),
        ("bash", "bash ./script.sh", "script.sh"),
        ("bash", "bash -o pipefail script.sh", "script.sh"),
        ("bash", "bash --rcfile other script.sh", "script.sh"),
        ("bash", "bash +x script.sh", "script.sh"),
        ("dash", "sh -o errexit script.sh", "script.sh"),
        ("bash", "bash -s", "<stdin>"),
        ("bash", "bash -", "<stdin>"),
        ("python3.11", "python3", "<stdin>"),
        ("python3.11", "python3 -u", "<stdin>"),
        ("python3.11", "python3 -", "<stdin>"),
        ("python3.11", "python3 -W ignore script.sh", "script.sh"),
        ("python3.11", "python3 -X dev -u script.sh", "script.sh"),
        ("python3.11", "python3 -m local", "local.py"),
        ("python3.11", "python3 -m pkg.inner", "pkg/inner.py"),
        ("python3.11", "python3 -m pkg", "pkg/__init__.py"),
        ("python3.11", "python3 -m http.server", ""),
        ("python3.11", "python3 -c print()", ""),
        ("python3.11", "python3 pkg", "pkg/__main__.py"),
        ("python3.11", "python3 -E script.sh", "script.sh"),
        ("python3.11", "python3 -Bc print()", ""),
        ("python3.11", "python3 -um local", "local.py"),
        ("bash", "bash -e script.sh", "script.sh"),
        ("bash", "bash -p script.sh", "script.sh"),
        ("perl", "perl -wne 1", ""),
        ("perl", "perl -Mfeature script.sh", "script.sh"),
        ("perl", "perl -I /x script.sh", "script.sh"),
        ("perl", "perl -e 1", ""),
        ("node", "node --require x script.sh", "script.sh"),
        ("gawk", "gawk BEGIN{}", ""),
        ("gawk", "gawk", ""),
        ("busybox", "busybox sh", "<stdin>"),
        ("nginx", "nginx script.sh", ""),
    ],
)
def test_what_an_interpreter_runs(proc, exe, words, script):
    for name in ("local.py", "pkg/__init__.py", "pkg/inner.py"):
        (proc / name).parent.mkdir(exist_ok=True)
        (proc / name).touch()
    place = proc / "proc/42"
    (place / "exe").unlink()
    (place / "exe").symlink_to(f"/usr/bin/{exe}")
    (place / "fd").mkdir()
    (place / "fd/0").symlink_to("pipe:[77]")
    (place / "cmdline").write_text(words.replace(" ", "\0") + "\0")
    found = scan(proc)[0].script
    assert found == ({"": "", "<stdin>": "pipe:[77]"}.get(script) if script in ("", "<stdin>") else str(proc / script))


@pytest.mark.parametrize("stdin", ["/dev/pts/0", "/dev/null", "socket:[7]", ""])
def test_a_shell_at_a_terminal_interprets_no_file(proc, stdin):
    (proc / "proc/42/cmdline").write_text("bash\0")
    (proc / "proc/42/fd").mkdir()
    if stdin:
        (proc / "proc/42/fd/0").symlink_to(stdin)
    assert scan(proc)[0].script == ""


def test_variables_config_and_unit_of_a_process(proc):
    (proc / "proc/42/environ").write_text("HOME=/\0PYTHONPATH=lib\0LD_PRELOAD=\0PERL5OPT=-Mx\0")
    (proc / "proc/42/cmdline").write_text("bash\0/usr/bin/salt-minion\0-c\0/tmp/etc\0")
    (proc / "proc/42/cgroup").write_text("0::/user.slice/user-33.slice/user@33.service/app.slice/evil.service\n")
    [found] = scan(proc)
    assert found.variables == ("PYTHONPATH=lib", "PERL5OPT=-Mx")
    assert (found.config, found.own_unit, found.unit) == ("/tmp/etc", "evil.service", "user@33.service")


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ("salt-minion", ""),
        ("salt-minion --config-dir=/x", "/x"),
        ("salt-call --config-dir /x test.ping", "/x"),
        ("python3 /usr/bin/salt-minion -c /x", "/x"),
        ("grep -c /x", ""),
    ],
)
def test_the_config_of_a_program_of_salt(words, config):
    assert processes._config(words.split()) == config


def origin(path: str) -> str:
    return "image" if path in ("/usr/lib/app", "/usr/lib/libc.so.6") else "other"


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        pytest.param({"variables": ("PYTHONPATH=/usr/lib/app",)}, None, id="a folder of the image"),
        pytest.param({"variables": ("PYTHONPATH=/usr/lib/app:/run/x",)}, "has PYTHONPATH=", id="another one beside it"),
        pytest.param({"variables": ("PYTHONPATH=lib",)}, "has PYTHONPATH=lib", id="a relative one"),
        pytest.param({"variables": ("PYTHONPATH=.",)}, "has PYTHONPATH=.", id="the working directory"),
        pytest.param({"variables": ("LD_PRELOAD=/usr/lib/libc.so.6",)}, None, id="a library of the image"),
        pytest.param({"variables": ("LD_PRELOAD=/tmp/x.so",)}, "has LD_PRELOAD=/tmp/x.so", id="a library"),
        pytest.param({"variables": ("LD_PRELOAD=x.so /usr/lib/libc.so.6",)}, "has LD_PRELOAD", id="two libraries"),
        pytest.param({"variables": ("PERL5OPT=-Mevil",)}, "has PERL5OPT=-Mevil", id="a module by name"),
        pytest.param({"variables": ("NODE_OPTIONS=--max-old-space-size=512",)}, None, id="one that loads nothing"),
        pytest.param({"variables": ("NODE_OPTIONS=--require /tmp/x",)}, "has NODE_OPTIONS", id="one that does"),
        pytest.param({"variables": ("SALT_MINION_CONFIG=/tmp/etc/minion",)}, "SALT_MINION_CONFIG", id="a config"),
        pytest.param({"variables": ("BASH_ENV=/tmp/rc",)}, "has BASH_ENV", id="what a shell reads first"),
        pytest.param({"config": "/tmp/etc"}, "with its config in /tmp/etc", id="a second minion"),
        pytest.param({"config": "/etc/salt/"}, None, id="the minion"),
        pytest.param({"own_unit": "evil.service"}, "a unit of a user's own", id="a unit of a user"),
        pytest.param({"own_unit": "dbus.service"}, None, id="one that the image has for users"),
        pytest.param({"own_unit": "init.scope"}, None, id="the user's manager"),
    ],
)
def test_what_makes_a_program_load_other_code(more, detail):
    ours = {*OURS, "/usr/lib/systemd/user/dbus.service"}
    items = [item.detail for _, item in processes.drift([process(**more)], ours.__contains__, origin)]
    assert len(items) == (1 if detail else 0)
    assert not detail or detail in items[0]


def test_the_kernels_own_threads_and_what_has_ended_are_left_out(proc):
    stat = proc / "proc/42/stat"
    before = stat.read_text()
    stat.write_text(before.replace("4194304", str(0x00200040)))
    assert scan(proc) == []
    (proc / "proc/42/task/42").mkdir(parents=True)
    stat.write_text(before.replace(") S", ") Z"))
    assert scan(proc) == []
    (proc / "proc/42/exe").unlink()
    stat.write_text(before)
    assert scan(proc) == []


def test_a_process_whose_first_thread_has_ended_is_seen_by_another(proc):
    place = proc / "proc/42"
    (place / "task/43").mkdir(parents=True)
    for name in ("cmdline", "cgroup", "maps", "cwd", "exe"):
        os.rename(place / name, place / "task/43" / name)
    (place / "cmdline").touch()
    (place / "stat").write_text((place / "stat").read_text().replace(") S", ") Z"))
    assert [seen.exe for seen in scan(proc)] == ["/usr/bin/bash"]


def test_a_process_that_cannot_be_read_is_not_left_out(proc, monkeypatch):
    def refuse(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    (proc / "proc/43").mkdir()  # one that ended meanwhile
    (proc / "proc/44").touch()  # none at all
    assert [(seen.pid, seen.exe) for seen in scan(proc)] == [(42, "")]


# Sockets


def test_listeners_are_drift_unless_a_program_of_the_image_runs_in_a_unit_of_it():
    listeners = [Listener(7, "tcp 0.0.0.0:80"), Listener(8, "tcp 0.0.0.0:4444"), Listener(99, "udp 0.0.0.0:1")]
    ran = [process(7, unit="nginx.service"), process(8, exe="/usr/bin/python3.11")]
    [item] = sockets.drift(listeners, ran, expected={7})
    assert item[:2] == ("socket", "tcp 0.0.0.0:4444") and "of no unit listens (pid 8" in item.detail


def test_programs_that_a_unit_was_made_to_run_are_no_part_of_it():
    minion = process(1, exe="/usr/bin/python3.11", script="/opt/salt/bin/salt-minion", unit="salt-minion.service")
    job = process(2, exe="/usr/bin/python3.11", unit="salt-minion.service")
    mail = process(3, exe="/usr/sbin/exim4", unit="exim4.service")
    assert list(sockets.started_by_runners([minion, job, mail, process(4, unit="cron.service")])) == [2, 4]
    assert list(sockets.started_by_runners([process(5, unit="user@0.service")])) == [5]


def test_a_socket_that_waits_is_seen():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert Listener(os.getpid(), f"tcp 127.0.0.1:{port}") in sockets.scan()


# Services

STANZA = """Id=nginx.service
FragmentPath=/lib/systemd/system/nginx.service
SourcePath=
DropInPaths=/run/a.conf /etc/b.conf
ActiveState=active
UnitFileState=enabled
Type=forking
ConditionResult=yes
"""


def test_a_unit_is_what_systemctl_says():
    unit = services.unit(STANZA)
    assert (unit.name, unit.active, unit.enabled, unit.type, unit.conditions_met) == (
        "nginx.service", "active", "enabled", "forking", True,
    )  # fmt: skip
    assert unit.file.endswith("systemd/system/nginx.service") and len(unit.drop_ins) == 2


def unit(file: str = "/usr/lib/systemd/system/x.service", name: str = "x.service", **more) -> services.Unit:
    return services.Unit(name, file, **{"active": "active", **more})


@pytest.mark.parametrize(
    ("loaded", "detail"),
    [
        pytest.param(unit(), None, id="a unit of the image"),
        pytest.param(unit(""), None, id="what systemd makes by itself"),
        pytest.param(unit("/run/systemd/generator/x.mount"), None, id="what a generator made of nothing"),
        pytest.param(unit("/run/systemd/generator/x", source="/usr/lib/f"), None, id="of a file of the image"),
        pytest.param(unit("/run/systemd/generator/x", source="/tmp/f"), "not from the image", id="of another file"),
        pytest.param(
            unit("/run/systemd/generator.late/x", source="/usr/x.sh", programs=("/usr/x.sh",)), None, id="of a script"
        ),
        pytest.param(
            unit("/run/systemd/generator/x", source="/usr/f", programs=("/usr/lib/systemd/systemd-x",)), None,
            id="of a table, for a program of systemd",
        ),
        pytest.param(
            unit("/run/systemd/generator/x", source="/usr/f", programs=("/usr/bin/sh",)), "not from the image",
            id="forged beside what generators made",
        ),
        pytest.param(
            unit("/run/systemd/generator/x", source="/tmp/f", programs=("/tmp/f",)), "not from the image",
            id="forged as that of a script",
        ),
        pytest.param(
            unit("/run/systemd/generator/x", source="/usr/f", programs=("",)), "not from the image",
            id="which hides what it executes",
        ),
        pytest.param(unit("/run/systemd/transient/x.service"), "not from the image", id="a transient unit"),
        pytest.param(unit("/run/systemd/system/x.service", active="failed"), "not from the image", id="which failed"),
        pytest.param(unit("/run/systemd/system/x.service", active="inactive"), None, id="one that never ran"),
        pytest.param(unit(drop_ins=("/run/x.conf",)), "a drop-in of its unit", id="a drop-in"),
        pytest.param(unit(drop_ins=("/usr/lib/x.conf",)), None, id="a drop-in of the image"),
        pytest.param(
            unit(enabled="enabled", type="forking", active="inactive"), "it is inactive", id="a daemon was stopped"
        ),
        pytest.param(unit(enabled="enabled", type="oneshot", active="inactive"), None, id="a task that is done"),
        pytest.param(unit(enabled="enabled", type="simple", active="inactive"), None, id="a program that has ended"),
        pytest.param(unit(enabled="enabled", type="oneshot", active="failed"), "it is failed", id="a task that failed"),
        pytest.param(
            unit(name="x.timer", enabled="enabled", active="inactive"), "it is inactive", id="a timer that was stopped"
        ),
        pytest.param(
            unit(name="x.timer", enabled="enabled", active="inactive", conditions_met=False), None, id="not needed"
        ),
        pytest.param(unit(enabled="disabled", active="inactive", type="notify"), None, id="one that is not enabled"),
    ],
)  # fmt: skip
def test_units_are_from_the_image_and_run(loaded, detail):
    items = list(services.drift([loaded], lambda path: path.startswith("/usr/")))
    assert [item.kind for item in items] == (["service"] if detail else [])
    assert not detail or detail in items[0].detail


@pytest.mark.parametrize(
    ("loaded", "detail"),
    [
        pytest.param(unit("/dev/null", masked=True, active="inactive"), "it is masked", id="masked"),
        pytest.param(unit("/dev/null", "y.service", masked=True, active="inactive"), None, id="none of the image's"),
        pytest.param(unit("/dev/null", "y.service", masked=True), "its unit file", id="masked, though it runs"),
        pytest.param(unit("/run/systemd/generator/x.timer", "x.timer"), "its unit file", id="a timer among generated"),
        pytest.param(unit("/run/systemd/generator/x.path", "x.path"), "its unit file", id="a path among generated"),
        pytest.param(
            unit("/run/systemd/generator/x.timer", "x.timer", source="/usr/lib/x"), None, id="from a file of the image"
        ),
        pytest.param(
            unit("/usr/lib/s/a.slice", "a.slice", drop_ins=("/run/a.conf",)), "a drop-in", id="a drop-in of a slice"
        ),
        pytest.param(
            unit(enabled="enabled", type="simple", active="inactive", keeps_running=True), "is inactive",
            id="stopped, though systemd would start it again",
        ),
        pytest.param(
            unit(enabled="enabled", type="simple", active="inactive"), None, id="one that may end by itself"
        ),
    ],
)  # fmt: skip
def test_units_that_were_masked_stopped_or_put_among_generated_ones(loaded, detail):
    items = list(services.drift([loaded], lambda path: path.startswith("/usr/"), "x.service".__eq__))
    assert [item.kind for item in items] == (["service"] if detail else [])
    assert not detail or detail in items[0].detail


def test_what_a_generated_unit_executes_is_in_its_file():
    text = "[Service]\nExecStart=/etc/init.d/x start\n ExecStop = -@/bin/a b\nExecStartPre=sh\n"
    assert services.programs(text) == ("/etc/init.d/x", "/bin/a", "sh")
    assert services.programs("ExecStart=/etc/init.d/x start ; /bin/sh -c evil\nType=oneshot") == ("",)
    assert services.programs("ExecStart=/etc/init.d/x start \\\n; /bin/sh -c evil") == ("",)


def test_variables_of_every_unit_that_lead_out_of_the_image_are_drift():
    variables = 'LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin "PYTHONPATH=/run/evil" "OPTS=-a /tmp/b"'
    items = list(services.environment(variables, lambda path: not path.startswith("/usr/")))
    assert [item.detail.partition(" for every unit")[0] for item in items] == ["it sets PYTHONPATH", "it sets OPTS"]


def test_a_systemd_that_does_not_answer_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(services.SystemdUnavailable, match="systemctl"):
        services.scan()


# Logins


def record(kind: int, user: bytes, line: bytes, at: int) -> bytes:
    """See utmp(5)."""
    return struct.pack("=hxxi32s4s32s256shhiii4i20x", kind, 1, line, b"", user, b"198.51.100.7", 0, 0, 0, at, *[0] * 5)


def test_each_recorded_login_is_listed_once(tmp_path):
    (tmp_path / "run/systemd/sessions").mkdir(parents=True)
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "run/utmp").write_bytes(record(7, b"ada", b"pts/0", 50) + record(6, b"LOGIN", b"tty1", 50))
    (tmp_path / "var/log/wtmp").write_bytes(
        record(7, b"ada", b"pts/0", 50) + record(7, b"old", b"pts/1", 10) + record(2, b"reboot", b"~", 50) + b"cut off"
    )
    (tmp_path / "run/systemd/sessions/1").write_text("USER=bob\nCLASS=user\nSERVICE=sshd\n")
    (tmp_path / "run/systemd/sessions/c1").write_text("USER=cron\nCLASS=background\n")
    os.mkfifo(tmp_path / "run/systemd/sessions/1.ref")
    seen = logins.scan(str(tmp_path), since=20)
    assert [item[:2] for item in logins.drift(seen, [], ())] == [
        ("login", "ada on pts/0"),
        ("login", "bob on no terminal"),
    ]


@pytest.mark.parametrize(
    ("ran", "of_units", "expected"),
    [
        pytest.param(process(exe="/sbin/agetty", tty=34816), [7], [], id="a getty waits"),
        pytest.param(process(exe="/usr/bin/bash", tty=34817, user="root"), [7], ["root on pts/1"], id="a shell"),
        pytest.param(process(exe="/usr/bin/python3", tty=1025, user="ada"), [], ["ada on tty1"], id="of no unit"),
        pytest.param(process(exe="/usr/bin/python3", tty=1025), [7], [], id="a service with a terminal"),
        pytest.param(process(exe="/usr/bin/bash"), [], [], id="a script"),
    ],
)
def test_whoever_is_at_a_terminal_is_listed(ran, of_units, expected):
    assert [item.what for item in logins.drift([], [ran], of_units)] == expected


def test_a_recorded_login_is_not_listed_again_for_its_shell():
    shell = process(exe="/usr/bin/bash", tty=34817, user="ada")
    assert len(list(logins.drift([Login("ada", "pts/1", "logged in")], [shell], ()))) == 1


# Items


def test_an_item_can_be_sent_and_printed_whatever_a_file_is_called():
    item = Item("file", "/tmp/caf\udce9\n\x1b[31m\ud800é", "x").as_dict()
    assert item["what"] == "/tmp/caf\\xe9\\n\\x1b[31m\\ud800é"
    assert item["what"].encode()
