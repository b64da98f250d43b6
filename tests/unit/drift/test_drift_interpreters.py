"""What interpreters are told to run and to load, row by row; and that usual command lines are no drift."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from saltext.immutable.drift.running import interpreters, processes
from saltext.immutable.drift.running.processes import Process


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with code and data, of a process without a script on its input."""
    for name in ("x", "x.py", "x.js", "x.jar", "X.class", "evil.py", "evil.lua", "evil.sh", "data", "app/__main__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    (tmp_path / "NONE").touch()
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "node_modules/evil").mkdir(parents=True)
    (tmp_path / "node_modules/evil.js").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "process/fd").mkdir(parents=True)
    (tmp_path / "process/fd/0").symlink_to("/dev/null")
    (tmp_path / "process/fd/9").symlink_to("pipe:[9]")
    return tmp_path


def foreign(place: Path, exe: str, line: str, explained: frozenset[str] = frozenset()) -> set[str]:
    """Return what a process with this command line runs and loads that is not below /usr or /etc. ``^``: its folder."""
    words = [word.replace("^", str(place)) for word in shlex.split(line)]
    kind, arguments = interpreters.kind_of(f"/usr/bin/{exe}", words)
    told = processes._Told(str(place / "process"), str(place), kind, interpreters.references(kind, arguments))
    ran = Process(
        7, f"/usr/bin/{exe}", True, line, told.script, told.code, told.folders, told.given,
        cwd=str(place), unit="x.service",
    )  # fmt: skip

    def ours(path: str) -> bool:
        return path.startswith(("/usr/", "/etc/"))

    def origin(path: str) -> str:
        return "image" if ours(path) else "other"

    details = [item.detail for _, item in processes.drift([ran], ours, origin, {"x.service": explained})]
    seen = {word.rstrip(",") for detail in details for word in detail.partition(" (pid")[0].split(" ")}
    return {word.removeprefix(f"{place}/") for word in seen if word.startswith((str(place), "pipe:", "/dev/"))} | {
        folder for folder in told.folders if folder in seen and not folder.startswith("/")
    }


@pytest.mark.parametrize(
    ("exe", "line", "found"),
    [
        ("python3.11", "python3 -mevil", "evil.py"),
        ("python3.11", "python3 -OOmevil arg", "evil.py"),
        ("python3.11", "python3 -Im evil", "evil.py"),
        ("python3.11", "python3 -s x.py", "x.py"),
        ("python3.11", "python3 -W '' x.py", "x.py"),
        ("python3.11", "python3 -Xdev -Wignore x.py", "x.py"),
        ("python3.11-dbg", "python3 app", "app/__main__.py"),
        ("python3.11", "python3 pipe", "pipe"),
        ("python3.11", "python3 /dev/fd/9", "pipe:[9]"),
        ("python3.11", "python3 /proc/self/fd/9", "pipe:[9]"),
        ("bash", "bash /dev/fd/8", "/dev/fd/8"),
        ("python3.11", "python3 /usr/bin/pdb3 x.py", "x.py"),
        ("python3.11", "python3 /usr/bin/tool --plugin=^/x.py", "x.py"),
        ("python3.11", "python3 -m trace script", "script"),
        ("pypy3", "pypy3 x", "x"),
        ("bash", "bash --rcfile x -i", "x"),
        ("bash", "bash --init-file x -i", "x"),
        ("bash", "bash --rcfile x /usr/bin/tool", "x"),
        ("bash", "bash -eo pipefail x", "x"),
        ("bash", "bash -o pipefail -O extglob x", "x"),
        ("bash", "bash +O extglob x", "x"),
        ("bash", "bash -x -- x", "x"),
        ("bash", "bash - x", "x"),
        ("bash", "bash -c 'source $0' evil.sh", "evil.sh"),
        ("bash", "bash NONE", "NONE"),
        ("bash", "bash --c x", "x"),
        ("dash", "sh -eu x", "x"),
        ("mksh", "mksh x", "x"),
        ("ksh93", "ksh x", "x"),
        ("zsh5", "zsh --emulate sh x", "x"),
        ("tcsh", "tcsh -f x", "x"),
        ("fish", "fish -C 'set a b' x", "x"),
        ("busybox", "busybox sh x", "x"),
        ("busybox", "sh x", "x"),
        ("busybox", "-sh x", "x"),
        ("busybox", "busybox awk -f x", "x"),
        ("perl", "perl -Mevil -I^/app /usr/bin/tool", "app"),
        ("perl", "perl -I app /usr/bin/tool", "app"),
        ("perl", "perl -Mlib=^/app /usr/bin/tool", "app"),
        ("perl", "perl -wTx script", "script"),
        ("perl", "perl -CSD x", "x"),
        ("perl5.36-x86_64-linux-gnu", "perl -i.bak x", "x"),
        ("ruby3.1", "ruby -Iapp -rset /usr/bin/tool", "app"),
        ("ruby3.1", "ruby -I /usr/lib:app /usr/bin/tool", "app"),
        ("ruby3.1", "ruby -r./evil.py /usr/bin/tool", "evil.py"),
        ("ruby3.1", "ruby -W:no-deprecated --encoding UTF-8 x", "x"),
        ("node", "node -r^/x /usr/bin/tool", "x"),
        ("node", "node --require ^/x.js /usr/bin/tool", "x.js"),
        ("node", "node --experimental-loader=^/x.js /usr/bin/tool", "x.js"),
        ("node", "node --experimental_loader=^/x.js /usr/bin/tool", "x.js"),
        ("node", "node --import file://^/x.js /usr/bin/tool", "x.js"),
        ("nodejs", "node -r evil /usr/bin/tool", "node_modules/evil.js"),
        ("node", "node x.js", "x.js"),
        ("php8.2", "php -fx", "x"),
        ("php8.2", "php --file=x", "x"),
        ("php8.2", "php -d auto_prepend_file=^/x /usr/bin/tool", "x"),
        ("php8.2", "php -dextension=^/x /usr/bin/tool", "x"),
        ("php8.2", "php -S localhost:80 -t app", "app"),
        ("php-cgi8.2", "php-cgi -c x", "x"),
        ("lua5.4", "lua -levil", "evil.lua"),
        ("lua5.4", "lua -e 'a=1' x", "x"),
        ("luajit", "luajit -jon x", "x"),
        ("gawk", "gawk -fx data", "x"),
        ("gawk", "gawk --file=x data", "x"),
        ("gawk", "gawk --fil x data", "x"),
        ("gawk", "gawk -v a=b -i evil.py 1 data", "evil.py"),
        ("mawk", "mawk -fx data", "x"),
        ("original-awk", "awk -F: -f x data", "x"),
        ("sed", "sed -nf x data", "x"),
        ("sed", "sed data --file=x", "x"),
        ("make", "make -f x", "x"),
        ("make", "make -j4 all --makefile=x", "x"),
        ("make", "make -C app", "app"),
        ("vim.basic", "vim -S x", "x"),
        ("vim.basic", "vim -nu x", "x"),
        ("gdb", "gdb -batch -x x", "x"),
        ("gdb", "gdb --command=x", "x"),
        ("expect", "expect x", "x"),
        ("expect", "expect -f x", "x"),
        ("expect", "expect -c 'set a 1' x", "x"),
        ("tclsh8.6", "tclsh -encoding utf-8 x", "x"),
        ("java", "java -jar x.jar", "x.jar"),
        ("java", "java -Xmx1g -cp /usr/share/a.jar:x.jar Main", "x.jar"),
        ("java", "java --class-path=/usr/share/a.jar:^/x.jar Main", "x.jar"),
        ("java", "java -javaagent:^/x.jar=a=b -jar /usr/share/a.jar", "x.jar"),
        ("java", "java -agentpath:^/x -jar /usr/share/a.jar", "x"),
        ("java", "java -Xbootclasspath/a:^/x.jar -jar /usr/share/a.jar", "x.jar"),
        ("java", "java --patch-module java.base=^/x.jar Main", "x.jar"),
        ("java", "java @x Main", "x"),
        ("java", "java X", "X.class"),
        ("guile-3.0", "guile -s x", "x"),
        ("R", "R --file=x", "x"),
        ("emacs-nox", "emacs --batch -l x", "x"),
        ("beam.smp", "beam.smp -W w -- -pa app -s rabbit", ""),
        ("beam.smp", "beam.smp -W w -pa app -s rabbit", "app"),
        ("uwsgi", "uwsgi --ini /etc/app.ini --wsgi-file x", "x"),
    ],
)  # fmt: skip
def test_code_that_an_interpreter_is_told_to_run_is_found(place, exe, line, found):
    assert foreign(place, exe, line) == ({found} if found else set())


@pytest.mark.parametrize(
    ("exe", "line"),
    [
        ("python3.11", "/usr/bin/python3 /usr/bin/salt-minion"),
        ("python3.11", "/usr/bin/python3 /usr/bin/salt-minion MultiMinionProcessManager MinionProcessManager"),
        ("python3.11", "/usr/bin/python3 /usr/share/unattended-upgrades/shutdown --wait-for-signal"),
        ("python3.11", "/usr/bin/python3 /usr/bin/fail2ban-server -b -s ^/data -p ^/data --logtarget=^/data"),
        ("python3.11", "/usr/bin/python3 -m http.server 80"),
        ("python3.11", "/usr/bin/python3 -Esc 'print(1)' data"),
        ("python3.11", "'gunicorn: master [app]'"),
        ("perl", "/usr/bin/perl -wT /usr/sbin/munin-node"),
        ("perl", "/usr/bin/perl -T -w /usr/sbin/spamd --pidfile=^/data -x -u spam"),
        ("perl", "/usr/bin/perl -lne 'print' data"),
        ("perl", "perl -0777 -pi.bak -e 's/a/b/' data"),
        ("perl", "perl -CSDe 1 data"),
        ("bash", "-bash"),
        ("bash", "bash -eo pipefail -c 'a | b' data"),
        ("bash", "/bin/bash --rcfile /dev/null -i"),
        ("bash", "/bin/bash /usr/bin/mysqld_safe --pid-file=^/data --log-error=^/data"),
        ("dash", "/bin/sh -c 'test -x /usr/sbin/anacron || run-parts /etc/cron.daily'"),
        ("dash", "/bin/sh -e /usr/lib/php/sessionclean"),
        ("dash", "/bin/sh /etc/cron.daily/logrotate"),
        ("mawk", "awk -F: '{print $1}' ^/data"),
        ("gawk", "gawk -v a=b -- 'BEGIN {}' x.py"),
        ("sed", "sed -i.bak -E s/a/b/ x.py"),
        ("sed", "sed -n -e 1p x.py"),
        ("busybox", "busybox tail -f x.py"),
        ("busybox", "busybox"),
        ("vim.basic", "vim -u NONE x.py"),
        ("make", "make -f /usr/share/Makefile -j 4 all"),
        ("gdb", "gdb -batch -ex bt -p 123 /usr/sbin/nginx data"),
        ("php8.2", "php -c /etc/php/8.2/cli -d error_reporting='~E_ALL' -d extension=mbstring -r 'foreach'"),
        ("php8.2", "php -d auto_prepend_file=none /usr/share/app/cron.php data"),
        ("php-fpm8.2", "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)"),
        ("node", "node --max-old-space-size=512 /usr/share/app/server.js --config data"),
        ("ruby3.1", "ruby -W0 /usr/bin/puma -C /etc/puma.rb --state=^/data"),
        ("java", "/usr/bin/java -Djava.util.logging.config.file=^/data -Djava.io.tmpdir=^/app -Xmx1g -mx512m "
                 "--add-opens java.base/java.lang=ALL-UNNAMED -classpath /usr/share/bootstrap.jar:/usr/share/juli.jar "
                 "-Dcatalina.base=^/app org.apache.catalina.startup.Bootstrap start"),
        ("java", "java -jar /usr/share/jenkins.war --webroot=^/app --logfile=^/data"),
        ("beam.smp", "beam.smp -W w -MBas ageffcbf -pa '' -boot start_sasl -mnesia dir '\"^/app\"' -noshell"),
        ("uwsgi", "uwsgi --ini /usr/share/uwsgi/default.ini --pidfile ^/data --daemonize ^/data"),
        ("postgres", "/usr/lib/postgresql/15/bin/postgres -D ^/app -c config_file=/etc/postgresql.conf"),
        ("nginx", "nginx: master process /usr/sbin/nginx -g daemon on;"),
        ("nginx", "/usr/sbin/nginx -c ^/data"),
        ("tail", "tail -f x.py"),
        ("cron", "/usr/sbin/cron -f"),
        ("dbus-daemon", "/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile"),
        ("node_exporter", "node_exporter x.py"),
        ("systemd", "/lib/systemd/systemd --user"),
    ],
)  # fmt: skip
def test_usual_command_lines_are_no_drift(place, exe, line):
    assert foreign(place, exe, line) == set()


KINDS = [*interpreters.GRAMMARS, *interpreters._ALIASES, *interpreters._UNKNOWN, "busybox", "toybox"]
OPTIONS = sorted({option for each in interpreters.GRAMMARS.values() for option in (*each.roles, *each.flags)})
WORDS = some.text("-+=:/@.abco", max_size=6) | some.sampled_from(OPTIONS) | some.text(max_size=3)


@hypothesis.given(some.sampled_from(KINDS), some.lists(WORDS, max_size=6))
def test_no_command_line_hides_a_process_from_the_check(exe, words):
    """Whatever it is, it is read to its end."""
    kind, arguments = interpreters.kind_of(f"/usr/bin/{exe}", words)
    found = interpreters.references(kind, arguments)
    processes._Told("/nowhere", "/", kind, [each for each in found if "\0" not in each.value])


@pytest.mark.parametrize("line", ["python3 /usr/bin/tool --with=^/x.py", "sh /usr/bin/tool ^/script"])
def test_an_argument_that_the_unit_of_the_image_gives_is_explained(place, line):
    exe, word = line.split()[0], line.split()[-1].replace("^", str(place))
    assert foreign(place, exe, line)
    assert not foreign(place, exe, line, frozenset([word]))


def test_a_unit_explains_no_script_that_is_not_from_the_image(place):
    assert foreign(place, "python3", "python3 x.py", frozenset(["x.py"])) == {"x.py"}


def test_what_a_process_sees_in_a_folder_of_its_own_is_found(place):
    inner = place / "process/root/tmp/alone/x.py"
    inner.parent.mkdir(parents=True)
    inner.touch()
    references = interpreters.references("python", ["/usr/a", "/tmp/alone/x.py"])
    told = processes._Told(str(place / "process"), "/", "python", references)
    assert told.given == (("/tmp/alone/x.py", "/tmp/alone/x.py"),)
