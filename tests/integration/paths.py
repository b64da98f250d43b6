"""Every path to a change on a sealed machine that we know of, and where it ends.

The rows are tried on a real machine by test_guarded.py; they are the table in docs/guard.md, which `python paths.py`
prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["refused", "read-only", "never runs", "found"]
From = Literal["master", "job id", "returner", "runner", "machine", "pillar", "bus"]

ROOT = "/etc/marked"
VAR = "/var/lib/marked"
"""What an attempt would leave: on the root, and where machines may write."""
TOUCH = f"touch {VAR}"

SAID: dict[Outcome, str] = {
    "refused": "refused: exit code 1 and a sentence that says what to do instead",
    "read-only": "fails at the read-only root",
    "never runs": "stopped: no scheduled job runs",
    "found": "found by `fleet.drift`, which taints the machine: the next roll replaces it",
}


@dataclass(frozen=True)
class Row:
    """One path: what is tried from where, and how it ends."""

    name: str
    start: From
    tried: str
    """Words for `salt`, `salt-run` or a shell inside the machine; ``{id}`` is the machine."""
    outcome: Outcome
    finds: tuple[str, str] = ("", "")
    """What drift names: its kind, and a part of what it is or what is said of it."""
    says: str = "sealed:"
    """What a refusal says."""
    undo: str = ""
    """Shell line that undoes what would hide the next row."""


def master(name: str, tried: str) -> Row:
    """Return a job on the machine that is refused."""
    return Row(name, "master", tried, "refused")


def returned(name: str, returner: str, fun: str = "test.ping", **options: Any) -> Row:
    """Return a job with a returner that is refused."""
    return Row(name, "returner", json.dumps({"fun": fun, "ret": returner, "ret_kwargs": options}), "refused")


def call(name: str, tried: str) -> Row:
    """Return a command inside the machine that is refused."""
    return Row(name, "machine", tried, "refused")


def found(name: str, tried: str, finds: tuple[str, str]) -> Row:
    """Return a command inside the machine that works, and is found."""
    return Row(name, "machine", tried, "found", finds)


PYTHON = "/opt/salt/bin/python -c"
CALLER = "import salt.client; salt.client.Caller().cmd('file.touch', '{path}')"
OWN = "mkdir -p /tmp/own/{kind}; printf '{code}' > /tmp/own/{kind}/{name}.py; "
OWN_CONFIG = "mkdir -p /tmp/etc; echo '{id: own, root_dir: /tmp/own}' > /tmp/etc/minion;"
OWN_MODULE = OWN.format(kind="modules", name="evil", code=f'import os\\ndef run(): os.system("{TOUCH}")\\n')
CALLS_THROUGH = "def execute(opts, data, func, args, kwargs): return func(*args, **kwargs)\\n"
OWN_EXECUTOR = OWN.format(kind="executors", name="direct_call", code=CALLS_THROUGH)
OWN_PING = OWN.format(kind="modules", name="test", code=f'import os\\ndef ping(): os.system("{TOUCH}")\\n')
OWN_TOKEN = """\
salt-call --out=json immutable.break_glass_challenge 900 > /tmp/challenge && cat > /tmp/sign.py <<'END'
import json
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from saltext.immutable.guard import break_glass_token
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
place = "/var/lib/salt/pki/minion/minion_master.pub"
with open(place, "rb") as file:
    lines = file.read().splitlines(keepends=True)
with open(place + ".own", "wb") as file:
    file.write(b"".join([public.replace(b"\\n", b" "), b"\\n", *lines[1:]]))
asked = json.load(open("/tmp/challenge"))["local"]
bound = {name: asked[name] for name in ("machine", "nonce", "boot_id", "until")}
private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
print(break_glass_token.sign(break_glass_token.Grant(**bound, reason="none", who="mallory"), private))
END
token=$(/opt/salt/bin/python /tmp/sign.py); cd /var/lib/salt/pki/minion; cp minion_master.pub /tmp/true.pub
cat minion_master.pub.own > minion_master.pub; salt-call --local immutable.break_glass $token; code=$?
cat /tmp/true.pub > minion_master.pub; rm minion_master.pub.own; exit $code"""

OPEN = "mount -o remount,bind,exec"
"""Programs run only where the image says: root on the machine can change that, which is found as well."""
SLEEP = "import time; time.sleep(900)"
SLEEPS = "setsid python3 {how} '{code}' >/dev/null 2>&1 & sleep 0.5"

ROWS = (
    # Jobs
    master("highstate", "state.highstate"),
    master("a state file", "state.apply web"),
    master("a state file, by its old name", "state.sls web"),
    master("one state of a file", "state.sls_id /etc/motd web"),
    master("a single state", f"state.single file.touch {VAR}"),
    master("states as data", f"state.high '{{x: {{file.touch: [{{name: {VAR}}}]}}}}'"),
    master("a low chunk", f"state.low '{{state: file, fun: touch, name: {VAR}}}'"),
    master("a template as text", f"state.template_str '{VAR}: file.touch'"),
    master("the top file of an environment", "state.top top.sls"),
    master("a dry run of text", f"state.template_str '{VAR}: file.touch' test=True"),
    master("a command", f"cmd.run '{TOUCH}'"),
    master("a script", "cmd.script salt://web/script.sh"),
    master("Python code", f"cmd.exec_code python3 'open(\"{VAR}\", \"w\")'"),
    master("a function of a job of several", f"test.ping,cmd.run , '{TOUCH}'"),
    master("a file", f"file.touch {VAR}"),
    master("a file that is searched and deleted", "file.find /var/lib/dpkg delete=f"),
    master("a file from the master", f"cp.get_file salt://top.sls {VAR}"),
    master("a package", "pkg.install less"),
    master("a user", "user.add mallory"),
    master("a service at boot", "service.disable nginx"),
    master("a grain", "grains.setval roles db"),
    master("the modules of the tree", "saltutil.sync_all"),
    master("the executors of the tree", "saltutil.sync_executors"),
    master("the cached modules", "saltutil.clear_cache"),
    master("a scheduled job", f"schedule.add x function=cmd.run job_args=\"['{TOUCH}']\" seconds=1"),
    master("the scheduler", "schedule.enable"),
    master("a beacon", "beacons.add load '[{averages: {1m: [0, 1]}}]'"),
    master("a function of the mine", f"mine.send x mine_function=cmd.run '{TOUCH}'"),
    master("an update of the mine with other functions", f"mine.update mine_functions='{{cmd.run: [{TOUCH}]}}'"),
    master("the scheduler, over the minion's own bus", "event.fire '{func: enable_schedule}' manage_schedule"),
    master("another function that calls functions", "test.try cmd.run"),
    master("a call through the master", f"saltutil.cmd '*' cmd.run '{TOUCH}'"),
    master("a runner through the machine", "saltutil.runner test.arg"),
    master("a job through another minion", f"publish.publish '*' cmd.run '{TOUCH}'"),
    master("a rendered template", "slsutil.renderer string='{{ salt[\"cmd.run\"](\"id\") }}'"),
    master("the seal itself", "immutable.unseal"),
    master("a second seal", "immutable.seal"),
    master("executor splay", f"--module-executors=[splay,direct_call] cmd.run '{TOUCH}'"),
    master("executor splay alone", f"--module-executors=splay cmd.run '{TOUCH}'"),
    # Envelopes
    returned("a returner", "highstate"),
    returned("a returner that writes", "local_cache"),
    returned("a returner with a file of the caller's", "rawfile_json", filename=VAR),
    returned("a returner that calls a function", "highstate", success_function="immutable.unseal"),
    returned("a returner that writes a report", "highstate", report_delivery="file", file_output=VAR),
    returned("several returners", "local,rawfile_json", filename=VAR),
    returned("a returner of a function that is unknown", "rawfile_json", fun="no.such_function", filename=VAR),
    returned("a returner of a job of several functions", "rawfile_json", fun="test.ping,test.version", filename=VAR),
    master("an executor that runs the call elsewhere", "--module-executors=transactional_update test.ping"),
    # Units
    master("a mount", "service.stop tmp.mount"),
    master("the mount of a file", "service.stop etc-hosts.mount"),
    master("units by a glob", "service.stop 'tm*'"),
    master("the target that unmounts", "service.start umount.target"),
    master("other files over the programs", "service.start systemd-sysext"),
    master("the guard's own unit", "service.stop immutable-mine.timer"),
    master("the minion itself", "service.stop salt-minion"),
    master("a unit that is not the image's", "service.start evil"),
    # The master's other ways
    Row("the runner salt.execute", "runner", f"salt.execute {{id}} cmd.run arg=['{TOUCH}']", "refused"),
    Row("an orchestration", "runner", "state.orchestrate attack.orchestrated pillar='{target: {id}}'", "refused"),
    Row("the reactor", "bus", "event.send attack/reactor", "refused"),
    Row("states at the start of the minion (startup_states)", "bus", "", "refused"),
    # Inside, through Salt
    call("salt-call", f"salt-call cmd.run '{TOUCH}'"),
    call("salt-call --local", f"salt-call --local cmd.run '{TOUCH}'"),
    call("salt-call with another config", f"{OWN_CONFIG} salt-call --local -c /tmp/etc cmd.run '{TOUCH}'"),
    call("salt-call as another id", f"salt-call --local --id other cmd.run '{TOUCH}'"),
    call("salt-call with modules of one's own", f"{OWN_MODULE} salt-call --local -m /tmp/own evil.run"),
    call(
        "salt-call with states of one's own",
        f"mkdir -p /tmp/own; echo '{VAR}: file.touch' > /tmp/own/x.sls; "
        "salt-call --local --file-root=/tmp/own state.apply x",
    ),
    Row("salt-call of a forged token", "machine", "salt-call immutable.break_glass Zm9yZ2Vk.Zm9yZ2Vk", "refused",
        says="break-glass refused"),
    Row("salt-call of a token that is signed by another, whose key stands before the master's", "machine", OWN_TOKEN,
        "refused", says="break-glass refused"),
    # Past Salt's executors
    found("salt-call with a test.ping of one's own", f"{OWN_PING} salt-call --local -m /tmp/own test.ping",
          ("file", VAR)),
    Row("a job whose id is a path", "job id", "../../../../../var/lib/dpkg/statoverride", "refused"),
    Row("a job whose id is the path of a key", "job id", "../../../lib/salt/pki/minion/minion.pem", "refused"),
    Row("a job whose id only begins as one", "job id", "20261129200000123456/../../../../lib/marked", "refused"),
    Row("the scheduler, by pillar", "pillar", "schedule", "never runs"),
    Row("functions of the mine, by pillar", "pillar", "mine_functions", "refused"),
    Row("a beacon that calls functions, by pillar", "pillar", "beacons", "found", ("file", VAR)),
    found("salt-call with executors of one's own", f"{OWN_EXECUTOR} salt-call --local -m /tmp/own cmd.run '{TOUCH}'",
          ("file", VAR)),
    found("Salt's Python API", f"{PYTHON} \"{CALLER.format(path=VAR)}\"", ("file", VAR)),
    Row("Salt's Python API, on the root", "machine", f"{PYTHON} \"{CALLER.format(path=ROOT)}\"", "read-only"),
    Row("salt-ssh, from a master that has this pack", "runner", f"ssh file.touch {VAR}", "refused"),
    Row("salt-ssh, a raw command", "runner", f"ssh -r {TOUCH}", "found", ("file", VAR)),
    # Without Salt
    Row("root's shell, on the root", "machine", f"touch {ROOT}", "read-only"),
    Row("the root, mounted again", "machine", f"mount -o remount,rw /; touch {ROOT}", "read-only"),
    Row("a package, by apt", "machine", "apt-get install -y --no-download less; test -e /usr/bin/less", "read-only"),
    found("root's shell, where machines may write", TOUCH, ("file", VAR)),
    found("a file of the image, changed", "echo x >> /var/lib/dpkg/status", ("file", "/var/lib/dpkg/status")),
    found("a file of the image, removed", "rm -f /var/lib/dpkg/statoverride", ("file", "/var/lib/dpkg/statoverride")),
    found("mode and owner of a file of the image", "chmod 777 /var/lib/dpkg; chown 1:1 /var/mail",
          ("file", "/var/lib/dpkg")),
    found("a link in place of a directory", "mv /var/lib/misc /var/lib/misc.old; ln -s /tmp /var/lib/misc",
          ("file", "/var/lib/misc")),
    found("a bind mount over the image", "cp /etc/passwd /tmp/p; mount --bind /tmp/p /etc/passwd",
          ("mount", "/etc/passwd")),
    found("an empty file system over the image", "mount -t tmpfs none /etc/cron.d", ("mount", "/etc/cron.d")),
    found("a file of one's own over one that the launch mounted",
          "cp /etc/hosts /tmp/h; mount --bind /tmp/h /etc/hosts",
          ("mount", "/etc/hosts")),
    found("an empty file system over settings of the kernel", "mount -t tmpfs none /proc/sys/vm",
          ("mount", "/proc/sys/vm")),
    found("a mount that only one process sees",
          "setsid unshare --mount sh -c 'mount -t tmpfs none /etc/apt; exec sleep 900' >/dev/null 2>&1 & sleep 0.5",
          ("mount", "/etc/apt")),
    found("a setuid program in shared memory", "cp /bin/sleep /dev/shm/evil; chmod 4755 /dev/shm/evil",
          ("file", "/dev/shm/evil")),
    found("compiled code among custom modules",
          "mkdir -p /var/cache/salt/minion/extmods/executors/direct_call; "
          "echo x > /var/cache/salt/minion/extmods/executors/direct_call/__init__.pyc",
          ("file", "extmods/executors")),
    found("a cron job, by hand", "mkdir -p /var/spool/cron/crontabs; echo x > /var/spool/cron/crontabs/root",
          ("file", "/var/spool/cron/crontabs/root")),
    found("a unit that lives until the reboot",
          "printf '[Service]\\nExecStart=/bin/sleep 900\\n' > /run/systemd/system/evil.service; "
          "systemctl daemon-reload; systemctl start evil", ("service", "evil")),
    Row("a unit among those that generators made", "machine",
        "printf '[Service]\\nExecStart=/bin/sleep 900\\n' > /run/systemd/generator/made.service; "
        "touch /run/systemd/system/x.service; systemctl start made; rm /run/systemd/system/x.service", "found",
        ("service", "made"), undo="systemctl stop made; rm /run/systemd/generator/made.service"),
    Row("a generator of units", "machine",
        "mkdir /run/systemd/system-generators; cp /bin/true /run/systemd/system-generators/evil", "found",
        ("file", "system-generators/evil"), undo="rm -r /run/systemd/system-generators"),
    Row("code for every unit, by systemd's variables", "machine",
        "mkdir -p /run/code; systemctl set-environment PYTHONPATH=/run/code", "found", ("service", "PYTHONPATH"),
        undo="systemctl unset-environment PYTHONPATH"),
    # Of a user who never logs in: when root's last login ends, logind ends root's manager with all that it runs.
    found("a unit of a user's own",
          "systemctl start user@33; for _ in $(seq 30); do runuser -u www-data -- env XDG_RUNTIME_DIR=/run/user/33 "
          "systemd-run --user -q /usr/bin/python3 -m http.server 4448 && break; sleep 0.3; done; "
          "for _ in $(seq 100); do grep -q ':1160 ' /proc/net/tcp && break; sleep 0.1; done; "
          "grep ':1160 ' /proc/net/tcp || systemctl status user@33",
          ("socket", "4448")),  # a manager that has just begun may hang up, and 0x1160 is the port
    found("a program of the image that no unit started", "setsid tail -f /dev/null >/dev/null 2>&1 &",
          ("process", "no unit")),
    found("a folder in which programs run again", "mount -o remount,bind,exec /dev/shm", ("mount", "/dev/shm")),
    found("a program from a temporary folder",
          f"{OPEN} /tmp; cp /bin/sleep /tmp/evil; setsid /tmp/evil 900 >/dev/null 2>&1 &", ("process", "/tmp/evil")),
    found("a program that was deleted",
          f"{OPEN} /run; cp /bin/sleep /run/gone; setsid /run/gone 900 >/dev/null 2>&1 & sleep 0.2; rm /run/gone",
          ("process", "/run/gone")),
    found("a folder of one's own in an environment", f"PYTHONPATH=/run/x {SLEEPS.format(how='-c', code=SLEEP)}",
          ("process", "PYTHONPATH=/run/x")),
    found("a library of one's own in an environment", "LD_PRELOAD=/tmp/x.so setsid sleep 900 >/dev/null 2>&1 &",
          ("process", "LD_PRELOAD=/tmp/x.so")),
    found("a config of one's own in a program's environment",
          "SALT_MINION_CONFIG=/tmp/minion setsid sleep 900 >/dev/null 2>&1 &", ("process", "SALT_MINION_CONFIG")),
    found("a module of the working directory",
          f"cd /tmp; echo '{SLEEP}' > evil_module.py; setsid python3 -m evil_module >/dev/null 2>&1 & sleep 0.5",
          ("process", "/tmp/evil_module.py")),
    found("a script after an option with a value",
          f"echo '{SLEEP}' > /tmp/w.py; setsid python3 -W ignore /tmp/w.py >/dev/null 2>&1 & sleep 0.5",
          ("process", "/tmp/w.py")),
    found("a shell's script after an option",
          "echo 'sleep 900' > /tmp/o.sh; setsid bash -o pipefail /tmp/o.sh >/dev/null 2>&1 & sleep 0.5",
          ("process", "/tmp/o.sh")),
    found("a script on its input", f"echo '{SLEEP}' > /tmp/in; setsid python3 < /tmp/in >/dev/null 2>&1 & sleep 0.5",
          ("process", "/tmp/in")),
    found("a script that was deleted",
          f"echo '{SLEEP}' > /tmp/d.py; setsid python3 /tmp/d.py >/dev/null 2>&1 & sleep 0.5; rm /tmp/d.py",
          ("process", "/tmp/d.py (deleted)")),
    found("a folder as a script",
          f"mkdir -p /tmp/f; echo '{SLEEP}' > /tmp/f/__main__.py; setsid python3 /tmp/f >/dev/null 2>&1 & sleep 0.5",
          ("process", "/tmp/f/__main__.py")),
    found("a second minion", "mkdir -p /tmp/m; echo '{id: x, master: 127.0.0.1, root_dir: /tmp/m}' > /tmp/m/minion; "
          "setsid salt-minion -c /tmp/m >/dev/null 2>&1 & sleep 2", ("process", "its config in /tmp/m")),
    Row("a timer among the units that generators made", "machine",
        "printf '[Timer]\\nOnActiveSec=900\\nUnit=nginx.service\\n' > /run/systemd/generator/evil.timer; "
        "touch /run/systemd/system/x.service; systemctl start evil.timer; rm /run/systemd/system/x.service", "found",
        ("service", "evil.timer"), undo="systemctl stop evil.timer; rm /run/systemd/generator/evil.timer"),
    Row("a unit, masked", "machine", "systemctl mask --runtime --quiet ssh", "found", ("service", "masked"),
        undo="systemctl unmask --runtime --quiet ssh"),
    Row("a drop-in of a slice", "machine", "mkdir -p /run/systemd/system/system.slice.d; "
        "printf '[Slice]\\nMemoryMax=90%%\\n' > /run/systemd/system/system.slice.d/x.conf; systemctl daemon-reload",
        "found", ("service", "system.slice"), undo="rm -r /run/systemd/system/system.slice.d; systemctl daemon-reload"),
    found("a listener of one's own",
          f"{OPEN} /tmp; cp /usr/bin/python3 /tmp/py; setsid /tmp/py -m http.server 4444 >/dev/null 2>&1 & sleep 0.5",
          ("socket", "4444")),
    found("an interactive login", "setsid script -qc 'sleep 900' /dev/null >/dev/null 2>&1 & sleep 0.5", ("login", "")),
    Row("a forged seal", "machine", "echo '{}' > /tmp/seal; mount --bind /tmp/seal /etc/immutable/seal.json", "found",
        ("", "is damaged"), undo="umount /etc/immutable/seal.json"),
    Row("a seal that allows everything", "machine",
        "sed 's/\"allow\": \\[/&\"*.*\"/' /etc/immutable/seal.json > /tmp/seal; "
        "mount --bind /tmp/seal /etc/immutable/seal.json", "found", ("mount", "/etc/immutable/seal.json"),
        undo="umount /etc/immutable/seal.json"),
    Row("a pipe in place of the seal", "machine",
        "mkfifo /tmp/pipe; mount --bind /tmp/pipe /etc/immutable/seal.json", "found", ("", "is damaged"),
        undo="umount /etc/immutable/seal.json"),
    Row("no seal any more", "machine", "mount -t tmpfs none /etc/immutable", "found", ("", "not sealed"),
        undo="umount /etc/immutable"),
)


def table() -> str:
    """Return the table as the docs show it."""
    starts = {"runner": "master", "machine": "inside", "bus": "event", "pillar": "pillar"}
    lines = ["| path to a change | from | ends |", "|---|---|---|"]
    lines += [f"| {row.name} | {starts.get(row.start, 'job')} | {row.outcome} |" for row in ROWS]
    return "\n".join([*lines, "", *(f"- *{outcome}*: {said}" for outcome, said in SAID.items())]) + "\n"


if __name__ == "__main__":
    print(table(), end="")
