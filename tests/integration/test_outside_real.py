"""What comes from elsewhere than the tree: an encrypted pillar, stores of secrets, the mine and other minions.

A bake has the same of it as an ordinary machine has, tells none of the secrets, and says what nobody answered.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from saltext.immutable.images import layers
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines import network
from saltext.immutable.machines.description import Machine

ORDINARY = "outside-ordinary.tests.example.com"
TOKEN, STORED = "decrypted-on-the-master", "kept-in-a-store-of-the-master"
SHELF = '''
def get(key, profile=None, **kwargs):
    return f"{key}-on-the-shelf-{sum(key.encode())}"
'''
"""A driver of a secret store that the tree brings."""
ON_SHELF = [f"{key}-on-the-shelf-{sum(key.encode())}" for key in ("later", "now")]
PILLAR = """
stored: {{ salt['sdb.get']('sdb://vaulted/password') }}
later: sdb://shelf/later
shelf: {driver: shelf}
"""


@pytest.fixture(scope="module")
def encrypt(estate, tmp_path_factory):
    """Return what writes the pillar with the token, encrypted for the master anew."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    gpg = ["gpg", f"--homedir={home}", "--batch", "--quiet", "--trust-model=always", "--passphrase="]
    subprocess.run([*gpg, "--yes", "--quick-generate-key", "estate", "rsa2048", "encrypt", "never"], check=True)

    def write():
        words = [*gpg, "--armor", "--encrypt", "--recipient=estate"]
        told = subprocess.run(words, input=TOKEN, text=True, capture_output=True, check=True).stdout
        indented = "".join(f"  {line}\n" for line in told.splitlines())
        (estate.pillar / "encrypted.sls").write_text(f"#!yaml|gpg\ntoken: |\n{indented}")

    write.home = str(home)
    yield write
    subprocess.run(["gpgconf", f"--homedir={home}", "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def elsewhere(estate, configured, encrypt, tmp_path_factory):
    """A master with a keyring, a secret store and peers, and a minion that tells the mine its motto."""
    encrypt()
    written = {estate.pillar / "stored.sls": PILLAR, estate.states / "_sdb/shelf.py": SHELF}
    for file, text in written.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    store = tmp_path_factory.mktemp("store") / "vaulted.yaml"
    store.write_text(f"password: {STORED}\n")
    vaulted = {"driver": "yaml", "files": [str(store)]}
    config = {"gpg_keydir": encrypt.home, "vaulted": vaulted, "peer": {".*": ["test.ping"]}}
    with configured(**config), estate.minion("db.tests.example.com", tmp_path_factory.mktemp("db")):
        tell(estate, "slow and steady")
        yield
    for file in (*written, estate.pillar / "encrypted.sls"):
        file.unlink()


def tell(estate, motto):
    """Let the minion tell the mine another motto."""
    estate.salt("db.*", "mine.send", "motto", "mine_function=test.echo", motto)


@pytest.fixture(scope="module")
def outside(estate, elsewhere):
    """The answer of the bake."""
    return estate.salt_run("image.bake", "outside")


def files(etc):
    """Return the name, mode and content of what the states wrote."""
    return {file.name: (file.stat().st_mode, file.read_text()) for file in Path(etc).glob("outside.*")}


def of_layer(estate, report):
    return files(estate.host.layers / report["layers"][-1]["digest"] / "fs/etc")


def test_it_is_as_on_an_ordinary_machine(estate, outside):
    below = [layer["digest"] for layer in outside.data["layers"][:-1]]
    publish, ret = estate.ports
    config = {"id": ORDINARY, "master": network.gateway(estate.net), "publish_port": publish, "master_port": ret}
    estate.expect(ORDINARY)
    with ExitStack() as undo:
        undo.callback(estate.salt_key, "--yes", f"--delete={ORDINARY}")
        workspace = undo.enter_context(estate.host.workspace())
        (workspace / "fs").mkdir()
        # Or the minion and salt-call each make a key, and the master knows one of them.
        (workspace / "alone").write_text("[Unit]\nConditionPathExists=/never\n")
        description = Machine(
            minion_id=ORDINARY,
            image="",
            lower=layers.short_names(below),
            minion=config,
            bridge=estate.net.bridge,
            subnet=estate.net.subnet,
            read_only=False,
            upper=str(workspace / "fs"),
            files={"/run/systemd/system/salt-minion.service.d/alone.conf": str(workspace / "alone")},
        )
        with machines.temporary(estate.host, description) as machine:
            machines.wait_booted(machine)
            for function in (["saltutil.sync_all"], ["state.apply", "outside"]):
                done = machine.run(["timeout", "300", "salt-call", "--retcode-passthrough", *function])
                assert done.returncode == 0, done.stdout + done.stderr
        found = files(workspace / "fs/etc")
    assert found == of_layer(estate, outside.data)
    assert {"slow and steady" in found["outside.mine"][1], "True" in found["outside.peer"][1]} == {True}
    assert [found[f"outside.{name}"][1].strip() for name in ("token", "stored", "configured", "asked")] == [
        TOKEN,
        STORED,
        *ON_SHELF,
    ]


@pytest.mark.parametrize(
    ("begins", "says"),
    [
        pytest.param("/etc/outside.token holds the value of pillar token,", "the recipe marks as secret", id="gpg"),
        pytest.param("/etc/outside.stored holds the value of pillar stored,", "at_launch", id="a store of the master"),
        pytest.param(
            "/etc/outside.configured holds the value of sdb://shelf/later,", "from a secret store", id="a URI in pillar"
        ),
        pytest.param(
            "/etc/outside.asked holds the value of sdb://shelf/now,", "from a secret store", id="asked by a state"
        ),
        pytest.param(
            "outside/init.sls asked the mine for motto of nobody, and nobody answered", "at_launch", id="nobody answers"
        ),
    ],
)
def test_the_bake_warns(outside, begins, says):
    [warning] = [each for each in outside.data["warnings"] if each.startswith(begins)]
    assert says in warning


def test_no_other_warning_is_there(outside):
    assert len(outside.data["warnings"]) == 5, outside.data["warnings"]


def test_no_secret_is_anywhere_but_in_the_image(estate, outside):
    """In what the bake said and remembers, in provenance, in logs and in the master's cache of jobs."""
    values = [value.encode() for value in (TOKEN, STORED, *ON_SHELF)]
    said = (outside.stdout + outside.stderr).encode()
    assert not [value for value in values if value in said]
    for folder, folders, names in os.walk(estate.home):
        folders[:] = [name for name in folders if f"{folder}/{name}" != str(estate.host.layers)]
        for file in (Path(folder, name) for name in names):
            text = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
            assert not [value for value in values if value in text], file


def test_the_next_bake_asks_again_and_knows_a_value_that_was_encrypted_anew(estate, outside, encrypt):
    known = estate.salt_run("image.why", "outside").data
    said = " ".join(known["unproven"]["outside"]["what"])
    for asked in ("sdb://shelf/later", "asks the mine", "asks other minions"):
        assert asked in said
    encrypt()
    assert estate.salt_run("image.why", "outside").data["changed"] == []
    assert estate.salt_run("image.bake", "outside").data["image"] == outside.data["image"]
    tell(estate, "fast and furious")
    changed = estate.salt_run("image.bake", "outside").data
    assert changed["image"] != outside.data["image"]
    assert "fast and furious" in of_layer(estate, changed)["outside.mine"][1]


def test_states_that_need_an_answer_fail_as_salt_says_with_a_way_out(estate, elsewhere):
    answer = estate.salt_run("image.bake", "wanting", check=False)
    said = answer.stdout + answer.stderr
    assert answer.returncode == 1 and "has no attribute 'nobody'" in said, said
    assert "outside/wanting.sls asked the mine for motto of nobody, and nobody answered" in said and "at_launch" in said
