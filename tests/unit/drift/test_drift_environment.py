"""Which environment variables make a program load what is not from the image, row by row."""

from __future__ import annotations

import pytest

from saltext.immutable.drift.check import _Comparison
from saltext.immutable.drift.paths import Mutable, real_path
from saltext.immutable.drift.running import processes, services
from saltext.immutable.drift.running.environment import VARIABLES, is_variable, leads_out
from saltext.immutable.drift.running.mounts import Mount, runs_nothing
from saltext.immutable.drift.running.processes import Process
from saltext.immutable.images.stack import Entry

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def origin(path: str) -> str:
    if path.startswith(("/tmp", "/var/tmp", "/run", "/dev")):
        return "other"
    return "nothing" if "absent" in path else "image" if path.startswith(("/usr", "/etc", "/sbin", "/bin")) else "other"


def found(variable: str, exe: str = "/usr/bin/x", cwd: str = "/var/tmp") -> bool:
    assert is_variable(variable.partition("=")[0])
    return leads_out(variable, exe, cwd, origin)


@pytest.mark.parametrize(
    "variable",
    [
        *("PERL5OPT=-I/tmp/e", "PERL5OPT=-Mevil", "PERL5OPT=-d:evil", "PERL5OPT=Mevil", "PERL5OPT=-w -mevil"),
        *("PERL5OPT=-Mlib=/tmp", "PERL5OPT=-dt:evil", "PERL5DB=BEGIN { require '/tmp/x' }"),
        *("RUBYOPT=-r/tmp/x.rb", "RUBYOPT=-r./x", "RUBYOPT=-revil", "RUBYOPT=-I/tmp", "RUBYOPT=-W0 -I /usr/lib:/tmp"),
        *("NODE_OPTIONS=-r /tmp/x", "NODE_OPTIONS=--require /tmp/x", "NODE_OPTIONS=--require=/tmp/x"),
        *("NODE_OPTIONS=--experimental-loader=/tmp/x.mjs", "NODE_OPTIONS=--import file:///tmp/x", "NODE_PATH=/tmp"),
        *("NODE_OPTIONS=--max-old-space-size=9 --experimental_loader /tmp/x", "NODE_OPTIONS='--import' \"/tmp/x\""),
        *("JAVA_TOOL_OPTIONS=-javaagent:/tmp/x.jar", "JAVA_TOOL_OPTIONS=-Xbootclasspath/a:/tmp/x.jar"),
        *("JAVA_TOOL_OPTIONS=-agentpath:/tmp/x.so=a", "_JAVA_OPTIONS=-Djava.class.path=/tmp/x.jar"),
        *("JDK_JAVA_OPTIONS=-Xmx1g -cp /usr/share/a.jar:/tmp/x.jar", "JDK_JAVA_OPTIONS=@/tmp/x", "CLASSPATH=/tmp/*"),
        *("JAVA_TOOL_OPTIONS=-agentlib:evil", "JAVA_TOOL_OPTIONS=\"-javaagent:/tmp/x.jar", "CLASSPATH=/usr/a.jar:"),
        *("PYTHONPATH=:", "PYTHONPATH=:/usr/lib", "PYTHONPATH=/usr/lib:", "PYTHONPATH=.", "PYTHONPATH=lib"),
        *("LD_LIBRARY_PATH=:", "LD_LIBRARY_PATH=/usr/lib::/usr/lib", "LD_LIBRARY_PATH=/usr/lib;/tmp"),
        *("LD_PRELOAD=evil.so", "LD_AUDIT=/tmp/x.so", "PYTHONHOME=/tmp", "PYTHONUSERBASE=/tmp", "PYTHONSTARTUP=/tmp/x"),
        *("PYTHONWARNINGS=ignore::evil.Category", "PYTHONWARNINGS=error,all:0:evil.x:0:0", "PYTHONBREAKPOINT=evil.run"),
        *("LUA_PATH=/tmp/?.lua;;", "LUA_PATH_5_4=./?.lua", "LUA_CPATH=/usr/lib/?/../../../tmp/x.so"),
        *("LUA_INIT=os.execute('x')", "LUA_INIT_5_3=@/tmp/x", "PHPRC=/tmp", "PHP_INI_SCAN_DIR=:/tmp"),
        *("AWKPATH=.:/usr/share/awk", "AWKLIBPATH=/tmp", "ZDOTDIR=/tmp", "BASH_ENV=/tmp/rc", "BASH_ENV=$(evil)"),
        *("OPENSSL_ENGINES=/tmp", "OPENSSL_MODULES=/tmp", "OPENSSL_CONF=/tmp/x", "SALT_PROXY_CONFIG=/tmp/proxy"),
        *("SALT_MASTER_CONFIG=/tmp/master", "GCONV_PATH=/tmp", "LOCPATH=/tmp", "NLSPATH=/tmp/%N", "GEM_PATH=/tmp"),
        *(f"{PATH}:/tmp", f"{PATH}:", f"{PATH}:bin", "PATH=/var/tmp/bin:/usr/bin", "GIO_EXTRA_MODULES=/tmp"),
        *("LD_PRELOAD=/usr/absent/x.so", "LD_AUDIT=/usr/absent/x.so", "CLASSPATH=/tmp/absent.jar", "PERL5LIB=/tmp",
          "JAVA_TOOL_OPTIONS=-javaagent:/usr/absent.jar", "BUNDLE_GEMFILE=/tmp/Gemfile", "TCLLIBPATH=/usr/lib /tmp"),
    ],
)  # fmt: skip
def test_a_variable_that_leads_out_of_the_image_is_found(variable):
    assert found(variable)


@pytest.mark.parametrize(
    "variable",
    [
        *(PATH, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/absent/games:/usr/games", "PERL5OPT=-w", "RUBYOPT=-W0"),
        *("NODE_OPTIONS=--max-old-space-size=512", "NODE_OPTIONS=--require=/usr/lib/x.js", "RUBYOPT=-rbundler/setup"),
        *("JDK_JAVA_OPTIONS= --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.io=ALL-UNNAMED",),
        *("JAVA_TOOL_OPTIONS=-Xmx1g -Djava.io.tmpdir=/var/tmp -XX:HeapDumpPath=/var/tmp -Dfile.encoding=UTF-8",),
        *("JAVA_TOOL_OPTIONS=-javaagent:/usr/share/java/jolokia.jar=port=7777", "CLASSPATH=/usr/share/java/*"),
        *("PYTHONPATH=/usr/lib/app", "PYTHONWARNINGS=ignore", "PYTHONWARNINGS=ignore::DeprecationWarning:pkg.mod"),
        *("PYTHONBREAKPOINT=0", "LUA_PATH=/usr/share/lua/5.4/?.lua;;", "PHP_INI_SCAN_DIR=:/etc/php", "ENV=production"),
        *("ENV=/tmp/x", "OPENSSL_CONF=/dev/null", "BASH_ENV=/dev/null", "NLSPATH=/usr/share/locale/%L/%N"),
        *("LD_PRELOAD=/usr/lib/libeatmydata.so /usr/lib/b.so", "RUBYOPT=-r/usr/lib/ruby/bundler/setup"),
        *("SALT_MINION_CONFIG=/etc/salt/minion", "PYTHONHOME=/usr", "GCONV_PATH=/usr/lib/gconv"),
        *("CLASSPATH=/usr/share/java/a.jar:/usr/absent.jar", "GEM_PATH=/usr/share/gems:/usr/absent/.gem/ruby/3.1.0"),
        *("PYTHONPATH=/usr/absent", "JDK_JAVA_OPTIONS=-cp /usr/share/a.jar:/usr/absent.jar", "RUBYOPT=-I/usr/absent"),
        *("NODE_PATH=/usr/lib/node_modules:", "NODE_PATH=:/usr/lib"),
    ],
)
def test_usual_variables_are_no_drift(variable):
    assert not found(variable)


@pytest.mark.parametrize(
    ("variable", "exe", "drift"),
    [
        pytest.param("PATH=/tmp/yarn--1-0.5:/usr/bin", "/usr/bin/node", False, id="no program runs there"),
        pytest.param("PATH=/tmp/yarn--1-0.5:/usr/bin", "/usr/bin/dash", True, id="a shell reads what it finds by PATH"),
        pytest.param("PATH=/run/app:/usr/bin", "/usr/bin/node", True, id="programs run there"),
        pytest.param("NODE_PATH=/tmp/yarn--1-0.5", "/usr/bin/node", True, id="code is only read"),
    ],
)
def test_a_folder_of_PATH_on_a_noexec_mount_is_harmless(variable, exe, drift):
    assert leads_out(variable, exe, "/", lambda path: "noexec" if path.startswith("/tmp/") else origin(path)) == drift


@pytest.mark.parametrize(
    ("origin", "drift"), [("image", False), ("nothing", False), ("noexec", True), ("other", True)]
)
def test_an_interpreter_reads_from_a_folder_of_its_arguments_where_no_program_runs(origin, drift):
    ran = Process(7, "/usr/bin/perl", True, "perl", folders=("/tmp/lib",))
    assert bool(list(processes.drift([ran], lambda path: True, lambda path: origin))) == drift


def test_an_empty_or_relative_part_is_judged_by_the_working_directory():
    for variable in ("PYTHONPATH=:", "LD_LIBRARY_PATH=/usr/lib:", "PYTHONPATH=lib"):
        assert found(variable, cwd="/var/tmp") and found(variable, cwd="") and not found(variable, cwd="/usr/lib/app")
    assert not found("LD_LIBRARY_PATH=:", cwd="/") and not found("PYTHONPATH=.", cwd="/")
    assert found("PYTHONPATH=tmp", cwd="/")


def test_a_shell_reads_the_file_of_ENV():
    assert found("ENV=/tmp/x", exe="/usr/bin/dash") and not found("ENV=production", exe="/usr/bin/dash")


def test_what_the_reviewers_missed_is_in_the_table():
    assert {"PATH", "GCONV_PATH", "LOCPATH", "PERL5DB"} < VARIABLES
    assert not {"HOME", "LANG", "PWD", "SHELL"} & VARIABLES


UNIT = """Id=app.service
FragmentPath=/usr/lib/systemd/system/app.service
Environment=PYTHONPATH=/srv/app "JAVA_TOOL_OPTIONS=-javaagent:/srv/a b.jar" CONF=/srv/app/x.py
EnvironmentFiles={file} (ignore_errors=no)
EnvironmentFiles=/run/own.env (ignore_errors=yes)
ExecStartPre={{ path=/usr/bin/a ; argv[]=/usr/bin/a --check ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}
ExecStart={{ path=/usr/bin/b ; argv[]=/usr/bin/b -g x on; --conf=${{CONF}} $MORE ; ignore_errors=no ; pid=7 }}
"""


def test_what_the_unit_of_the_image_gives_is_explained(tmp_path):
    file = tmp_path / "app.env"
    file.write_text("# LD_PRELOAD=/tmp/x\n\nRUBYLIB='/srv/ruby lib'\nMORE=-v\n")
    unit = services.unit(UNIT.format(file=file))
    given = services.explained(unit, lambda path: path == str(file))
    assert {"PYTHONPATH=/srv/app", "JAVA_TOOL_OPTIONS=-javaagent:/srv/a b.jar", "RUBYLIB=/srv/ruby lib"} <= given
    assert {"--check", "--conf=/srv/app/x.py", "-v", "on;"} <= given
    assert "RUBYLIB=/srv/ruby lib" not in services.explained(unit, lambda path: False)
    ran = Process(7, "/usr/bin/b", True, "b", unit="app.service", variables=("PYTHONPATH=/srv/app",))
    assert list(processes.drift([ran], lambda path: True, origin))
    assert not list(processes.drift([ran], lambda path: True, origin, {"app.service": given}))
    assert list(processes.drift([ran], lambda path: True, origin, {"other.service": given}))


def entry(kind: str, content: str | None = None) -> Entry:
    return Entry(kind, 0o755, 0, 0, 0, 0, content, None)


FILES = {
    ".": entry("dir"), "usr": entry("dir"), "usr/bin": entry("dir"), "usr/bin/tool": entry("file"),
    "bin": entry("link", "usr/bin"), "opt": entry("dir"), "opt/salt": entry("link", "/usr"), "tmp": entry("dir"),
    "opt/loop": entry("link", "loop"), "opt/out": entry("link", "../tmp"), "opt/changed": entry("link", "/usr"),
    "var/lib/app": entry("dir"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/usr/bin", "image"), ("/bin", "image"), ("/bin/tool", "image"), ("/opt/salt/bin/../bin/", "image"),
        ("/var/lib/app", "image"), ("/opt/absent/bin", "nothing"), ("/tmp", "other"), ("/tmp/absent", "other"),
        ("/opt/out", "other"), ("/opt/loop", "other"), ("/opt/changed", "other"), ("/", "other"), ("/..", "other"),
    ],
)  # fmt: skip
def test_where_a_path_leads_by_links_of_the_image(path, leads_to):
    compared = _Comparison.__new__(_Comparison)
    compared.image = type("Image", (), {"files": FILES, "own": frozenset()})
    compared.files, compared.mutable, compared.mounted = {"opt/changed"}, Mutable(()), [Mount("/", "ext4", "/", "a")]
    assert compared._origin(path) == leads_to
    compared.mounted.append(Mount("/tmp", "tmpfs", "/", "b", options="rw,noexec"))
    assert compared._origin(path) == ("noexec" if path in ("/tmp", "/tmp/absent", "/opt/out") else leads_to)


@pytest.mark.parametrize(
    ("path", "nothing"),
    [("/tmp", True), ("/tmp/a", True), ("/tmp/run/a", False), ("/tmpfs", False), ("/mnt", False), ("/", False)],
)
def test_where_no_program_is_run(path, nothing):
    """The nearest mount decides; of two over each other, both."""
    rows = [("/", "rw"), ("/tmp", "rw,noexec"), ("/tmp/run", "rw"), ("/mnt", "noexec"), ("/mnt", "rw")]
    assert runs_nothing([Mount(point, "tmpfs", "/", "a", options=options) for point, options in rows], path) == nothing


def test_links_that_lead_to_themselves_end():
    assert real_path("/a/b", lambda name: "a" if name == "a" else None) == ""
    assert real_path("/a/./../b//c", lambda name: "/x" if name == "b" else None) == "x/c"
