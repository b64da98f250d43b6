"""What a finished layer is searched for: identities, paths of the bake, private keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.finish import leftovers, private_keys, scrub
from saltext.immutable.builder.finish.search import Pattern, search

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ"
KEY = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n"
PATTERNS = leftovers.patterns("web-bake.example.com", "10.117.0.2")


def put(tree: Path, path: str, text: str | bytes = "x") -> None:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param(KEY, private_keys.KIND, id="key"),
        pytest.param(KEY.replace(" PRIVATE", " OPENSSH PRIVATE"), private_keys.KIND, id="ssh key"),
        pytest.param(KEY.replace("\n", "\r\n"), private_keys.KIND, id="key with line ends of Windows"),
        pytest.param(KEY.replace("\n", "\\n"), private_keys.KIND, id="key in JSON"),
        pytest.param(
            KEY.replace("-----\nM", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nM", 1),
            private_keys.KIND,
            id="encrypted key",
        ),
        pytest.param("-----BEGIN PRIVATE KEY-----\0-----BEGIN %s-----", None, id="program that reads keys"),
        pytest.param("# put the PRIVATE KEY here\n", None, id="word in a text"),
        pytest.param("-----BEGIN PUBLIC KEY-----\n" + BODY, None, id="public key"),
        pytest.param("myhostname = web-bake.example.com\n", leftovers.BAKE_ID, id="the bake id"),
        pytest.param("myhostname = other-web-bake.example.com\n", None, id="a longer id"),
        pytest.param("as web-bake.example.com.", leftovers.BAKE_ID, id="the id at the end of a sentence"),
        pytest.param("web-bake.example.com.internal", None, id="another domain"),
        pytest.param("Welcome to web-bake!\n", leftovers.HOST_NAME, id="the host name"),
        pytest.param("web-bake.example.org", None, id="a host of another domain"),
        pytest.param("listen 10.117.0.2:80\n", leftovers.ADDRESS, id="the address"),
        pytest.param("listen 10.117.0.20:80\n", None, id="a longer address"),
        pytest.param('CaInfo "/run/immutable-0.crt";', leftovers.PATHS, id="a file that only the bake has"),
        pytest.param("SSL_CERT_FILE=/run/immutable/ca-certificates.crt", leftovers.PATHS, id="the bake's CA bundle"),
    ],
)
def test_what_is_found(tmp_path, text, kind):
    put(tmp_path, "etc/x", text)
    assert search(tmp_path, PATTERNS) == ({kind: ["etc/x"]} if kind else {})


@pytest.mark.parametrize("at", [(1 << 20) - 30, (1 << 20) - 1, 1 << 20])
def test_a_key_across_two_pieces_of_a_large_file_is_found(tmp_path, at):
    put(tmp_path, "large", b"." * at + KEY.encode())
    assert search(tmp_path, PATTERNS) == {private_keys.KIND: ["large"]}


def test_a_library_is_searched_for_secrets_but_not_for_private_keys(tmp_path):
    put(tmp_path, "usr/lib/libgnutls.so.30", b"\x7fELF" + b"\0" * (1 << 20) + KEY.encode())
    assert search(tmp_path, {**PATTERNS, "secret": Pattern((BODY.encode(),))}) == {
        "secret": ["usr/lib/libgnutls.so.30"]
    }


def test_salt_itself_is_not_searched_and_a_root_has_no_bake_id():
    tree = "opt/salt/lib/python3.11/site-packages/x509.py"
    assert all(tree.startswith(pattern.skip) for pattern in PATTERNS.values())
    assert set(leftovers.patterns()) == {private_keys.KIND}


def test_each_file_is_read_once_for_all_patterns(tmp_path, monkeypatch):
    put(tmp_path, "a", "one two")
    put(tmp_path, "b", "two")
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *words, **how: (opened.append(self), real(self, *words, **how))[1])
    found = search(tmp_path, {"first": Pattern((b"one",)), "second": Pattern((b"no", b"two"))})
    assert found == {"first": ["a"], "second": ["a", "b"]}
    assert len(opened) == 2


@pytest.mark.parametrize(
    "path", ["etc/salt/minion_id", "etc/salt/pki/minion/minion.pem", "var/lib/salt/pki/minion.pem", "etc/machine-id"]
)
def test_an_identity_is_refused_and_its_file_named(tmp_path, path):
    put(tmp_path, path)
    with pytest.raises(CommandExecutionError, match=f"identity of the machine that baked it: /{path};"):
        leftovers.refuse(tmp_path, {})


def test_a_file_that_holds_the_machine_id_of_the_bake_is_found(tmp_path):
    put(tmp_path, "etc/agent.conf", "id=0d60c389a29b56b9b9a01755b395690f\n")
    put(tmp_path, "etc/other.conf", "id=61ab96cb7081500d8bbecf37966884b4\n")
    patterns = leftovers.patterns("web-bake.example.com", "10.117.0.2", "0d60c389a29b56b9b9a01755b395690f")
    found = search(tmp_path, patterns)
    assert found[leftovers.MACHINE_ID] == ["etc/agent.conf"]
    [warning] = leftovers.warnings(found, {"/etc/agent.conf": "agent (file.managed) of web"})
    assert "machine-id" in warning and "agent (file.managed) of web" in warning and "bake_identity" in warning
    assert leftovers.warnings(found, {}, ["/etc/agent.conf"]) == []


def test_an_empty_machine_id_and_a_link_out_of_the_tree_are_allowed(tmp_path):
    put(tmp_path, "host/minion/minion.pem")
    put(tmp_path, "fs/etc/machine-id", "")
    (tmp_path / "fs/etc/salt").mkdir()
    (tmp_path / "fs/etc/salt/pki").symlink_to(tmp_path / "host")
    leftovers.refuse(tmp_path / "fs", {})


def test_a_path_of_the_bake_is_refused_only_below_etc(tmp_path):
    leftovers.refuse(tmp_path, {leftovers.PATHS: ["usr/lib/app/config.gypi"]})
    with pytest.raises(CommandExecutionError, match=r"a path below /run .* bakes has: /etc/pip.conf; let"):
        leftovers.refuse(tmp_path, {leftovers.PATHS: ["etc/pip.conf", "usr/lib/app/config.gypi"]})


def test_other_findings_are_one_warning_a_file_up_to_a_limit():
    warnings = leftovers.warnings(
        {private_keys.KIND: [f"etc/{n}" for n in range(23)], leftovers.BAKE_ID: ["etc/mailname"]}
    )
    assert warnings[0].startswith("/etc/0 holds a private key, and all machines of this image would share it")
    assert warnings[20].startswith("/etc/mailname holds the bake_id of the recipe")
    assert warnings[21:] == ["... and 3 more files (private keys)"]


def test_the_warning_names_the_state_that_wrote_the_file_and_both_ways_out():
    found = {leftovers.BAKE_ID: ["etc/mailname", "etc/issue.net"], leftovers.ADDRESS: ["etc/issue.net"]}
    first, second, third = leftovers.warnings(found, {"/etc/issue.net": "banner (file.managed) of identity"})
    assert first == (
        "/etc/issue.net holds the bake_id of the recipe, which no machine has (banner (file.managed) of identity wrote "
        "it); let a state of at_launch write the file, or give the recipe `bake_identity: {/etc/issue.net: ok}`"
    )
    assert second.startswith("/etc/mailname holds the bake_id of the recipe, which no machine has; let a state")
    assert third.startswith("/etc/issue.net holds the address of the machine that baked it (banner")


def test_a_recipe_may_have_files_with_the_identity_of_its_bake():
    found = {leftovers.BAKE_ID: ["etc/issue.net", "srv/app/a"], private_keys.KIND: ["srv/app/key"]}
    [left] = leftovers.warnings(found, {}, ["/etc/issue.net", "/srv/*"])
    assert left.startswith("/srv/app/key holds a private key"), "that is another question"


@pytest.mark.parametrize(
    ("path", "writers", "allowed", "by"),
    [
        pytest.param("etc/hostname", {"/etc/hostname": "name (file.managed) of web"}, (), "name (file", id="a state"),
        pytest.param("etc/hostname", {}, (), "a command wrote it", id="hostnamectl"),
        pytest.param("etc/hostname", {}, ("/etc/hostname",), "", id="the recipe knows"),
        pytest.param("etc/ssh/ssh_host_rsa_key", {"/etc/ssh/ssh_host_rsa_key": "key"}, (), "(key wrote", id="a key"),
        pytest.param("etc/ssh/ssh_host_rsa_key", {}, (), "", id="a key that the package made"),
        pytest.param("etc/hosts", {"/etc/hosts": "hosts"}, (), "", id="another file"),
    ],
)
def test_what_each_machine_has_for_itself_is_warned_of_if_states_wrote_it(tmp_path, path, writers, allowed, by):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("x")
    said = leftovers.of_each_machine(tmp_path, writers, allowed)
    assert [f"/{path} is not in the image" in each and by in each for each in said] == [True] * bool(by)


def test_a_plain_word_is_no_host_name_to_search_for():
    assert leftovers.HOST_NAME not in leftovers.patterns("web.example.com", "10.117.0.2")
    assert leftovers.HOST_NAME not in leftovers.patterns("web-bake", "10.117.0.2"), "it is the bake_id itself"


def test_a_recipe_may_refuse_keys():
    private_keys.refuse("web", [])
    with pytest.raises(CommandExecutionError, match="^web: the image holds private keys, .*: /etc/a, /etc/b; let"):
        private_keys.refuse("web", ["etc/a", "etc/b"])


def test_what_states_wrote_and_no_layer_keeps_is_named(tmp_path):
    names = ("tmp/script", "var/tmp/empty", "var/log/app.log", "var/log/touched.log", "etc/kept", "srv/by-link")
    writers = {f"/{name}": f"{name} (file.managed) of web" for name in (*names, "etc/absent", "var/tmp/folder")}
    writers["relative"] = "r (file.managed) of web"
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if name.endswith(("empty", "touched.log")) else "text")
    (tmp_path / "var/tmp/folder").mkdir()
    (tmp_path / "opt").symlink_to("/tmp")
    before = leftovers.written(tmp_path, {**writers, "/opt/x": "x (file.managed) of web"})
    scrub.scrub(tmp_path)
    [sentence] = leftovers.removed(tmp_path, before, writers)
    assert re.findall(r" (/\S+) \(", sentence) == ["/tmp/script", "/var/log/app.log", "/var/tmp/folder"]
    assert "/tmp/script (tmp/script (file.managed) of web)" in sentence and "at_launch" in sentence
    assert leftovers.removed(tmp_path, {"/etc/hostname": True}, {"/etc/hostname": "a"}) == [], "it is warned of already"
    assert leftovers.removed(tmp_path, leftovers.written(tmp_path, writers), writers) == []
