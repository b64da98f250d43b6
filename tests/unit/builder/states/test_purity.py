"""Which states, functions and Python code are unproven: no key can see what they use."""

from __future__ import annotations

import pytest

from saltext.immutable.builder.states import purity

SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
COMMIT = "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def low(function: str, **more: object) -> dict[str, object]:
    state, _, fun = function.partition(".")
    return {"state": state, "fun": fun, "name": "x", **more}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        pytest.param(low("cmd.run"), "runs a command"),
        pytest.param(low("cmd.run", creates="/a", unless="true"), "runs a command", id="a command with a condition"),
        pytest.param(low("cmd.script", source="salt://a"), "runs a command"),
        pytest.param(low("module.run", name="cmd.run"), "calls cmd.run", id="module.run in its old form"),
        pytest.param(low("module.run", **{"http.query": [{"url": "x"}]}), "calls http.query", id="and in its new one"),
        pytest.param(low("pkg.latest"), "installs the newest version"),
        pytest.param(low("git.latest", rev="main"), "installs the newest version"),
        pytest.param(low("file.managed", source="https://a/b"), "fetches https://a/b without a hash"),
        pytest.param(
            low("file.managed", source="https://u:p@a/b"), "fetches https://a/b without a hash", id="password"
        ),
        pytest.param(low("file.managed", source=["salt://a", "http://a/b"]), "fetches http://a/b without a hash"),
        pytest.param(
            low("file.managed", source="https://a/b", source_hash="https://a/b.sha256"),
            "fetches https://a/b without a hash",
            id="a hash from there as well",
        ),
        pytest.param(
            low("archive.extracted", source="https://a/b", source_hash=SHA256, skip_verify=True),
            "fetches https://a/b without a hash",
            id="a hash that is not looked at",
        ),
        pytest.param(
            low("pkg.installed", sources=[{"a": "https://a/b.deb"}]), "fetches https://a/b.deb without a hash"
        ),
        pytest.param(low("pkgrepo.managed", key_url="https://a/key"), "fetches https://a/key without a hash"),
        pytest.param(low("pip.installed", name="flask"), "installs Python packages without ==: flask"),
        pytest.param(low("pip.installed", pkgs=["a==1", "b>=2"]), "installs Python packages without ==: b>=2"),
        pytest.param(low("pip.installed", requirements="salt://r"), "installs Python packages that a file"),
        pytest.param(low("npm.installed"), "runs a command"),
        pytest.param(low("git.detached", rev="main"), "installs the newest version"),
        pytest.param(low("file.cached", name="https://a/b"), "fetches https://a/b without a hash"),
        pytest.param(low("ssh_known_hosts.present", name="a"), "fetches a key from a server"),
        pytest.param(low("gpg.present", keys=["1234"]), "fetches a key from a server"),
        pytest.param(low("pkgrepo.managed", ppa="a/b"), "asks the internet"),
        pytest.param(low("x509.certificate_managed"), "reads the clock"),
        pytest.param(low("file.managed", contents="__slot__:salt:vault.read_secret(a)"), "asks the vault (slot)"),
        pytest.param(
            low("file.managed", context={"a": ["__slot__:salt:cmd.run(date).x ~ y"]}),
            "runs a command (slot)",
            id="a slot deep inside",
        ),
        pytest.param(low("file.managed", unless="test -f /a"), "runs a command (unless)"),
        pytest.param(low("file.managed", onlyif=["test -f /a"]), "runs a command (onlyif)"),
        pytest.param(low("file.managed", unless=[{"fun": "cmd.retcode"}]), "runs a command (unless)"),
    ],
)
def test_unproven_states(state, reason):
    assert (purity.unproven_state(state) or "").startswith(reason)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(low("test.nop"), id="nothing"),
        pytest.param(low("pkg.installed", pkgs=["nginx"]), id="packages: refresh is for them"),
        pytest.param(low("file.managed", source="salt://a"), id="a file of the master"),
        pytest.param(low("file.managed", source="https://a/b", source_hash=SHA256), id="a hash"),
        pytest.param(low("file.managed", source="https://a/b", source_hash=f"sha256={SHA256}"), id="a hash by kind"),
        pytest.param(
            low("archive.extracted", source="https://a", source_hash="salt://sums"), id="a hash of the master"
        ),
        pytest.param(low("git.latest", rev=COMMIT), id="a commit"),
        pytest.param(low("pip.installed", name="flask==3.0.0"), id="a version"),
        pytest.param(low("module.run", name="test.ping"), id="a function without effect"),
        pytest.param(low("file.managed", unless=[{"fun": "file.file_exists", "args": ["/a"]}]), id="a function asks"),
        pytest.param(low("git.detached", rev=COMMIT), id="a commit alone"),
        pytest.param(low("file.cached", name="https://a/b", source_hash=SHA256), id="a hash of what is cached"),
        pytest.param(low("ssh_known_hosts.present", name="a", key="AAAA"), id="a key"),
        pytest.param(low("file.managed", contents="__slot__:salt:grains.get(os)"), id="a slot that inputs tell"),
        pytest.param(low("file.managed", check_cmd="visudo -c -f"), id="what only fails a bake"),
    ],
)
def test_proven_states(state):
    assert purity.unproven_state(state) is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("cmd.run", "runs a command"),
        ("cmd.shell", "runs a command"),
        ("http.query", "asks the internet"),
        ("vault.read_secret", "asks the vault"),
        ("publish.publish", "asks other minions"),
        ("status.time", "reads the clock"),
        ("grains.get", None),
        ("pillar.get", None),
        ("file.file_exists", None),
    ],
)
def test_functions_are_checked_by_name(function, reason):
    assert purity.unproven_call(function) == reason


@pytest.mark.parametrize(
    ("code", "reasons"),
    [
        pytest.param("import time\n", ["imports time"], id="the clock"),
        pytest.param("def f():\n    from datetime import date\n", ["imports datetime"], id="within a function"),
        pytest.param("import requests, os", ["imports requests"], id="the internet"),
        pytest.param("a = __salt__['cmd.run']('x')", ["runs a command (cmd.run)"], id="a function of Salt's"),
        pytest.param("import os, time", ["imports time"], id="the clock beside another"),
        pytest.param("s = __salt__\ns['cmd.run']('x')", ["runs a command (cmd.run)"], id="by another name"),
        pytest.param("salt.cmd.run('x')", ["runs a command (cmd.run)"], id="as pyobjects do"),
        pytest.param("a = 'status.conf'", [], id="the name of a file"),
        pytest.param("import os\nimport timeit\na = __salt__['grains.get']('x')", [], id="neither"),
    ],
)
def test_python_code_is_checked_for_imports_and_functions(code, reasons):
    assert list(purity.unproven_code(code)) == reasons
