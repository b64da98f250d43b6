"""Who gets a user namespace, who does not and why, and when a machine is rather not launched."""

from __future__ import annotations

import errno
from contextlib import nullcontext

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.machines import user_namespace


def failing(error: OSError):
    def idmapped(folder: str, namespace: int) -> int:
        raise error

    return idmapped


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel that can do all; no namespace is made."""
    most = tmp_path / "max_user_namespaces"
    most.write_text("96000\n")
    monkeypatch.setattr(user_namespace, "_MOST", most)
    monkeypatch.setattr(user_namespace.platform, "release", lambda: "6.1.0-13-amd64")
    monkeypatch.setattr(user_namespace, "_namespace", lambda first: nullcontext(3))
    monkeypatch.setattr(user_namespace.kernel, "idmapped", lambda folder, namespace: user_namespace.os.open("/", 0))
    return most


def test_a_kernel_that_shifts_owners_gives_machines_their_own(kernel, tmp_path):
    assert user_namespace.impossible(tmp_path) == ""


@pytest.mark.parametrize("release", ["5.18.19", "5.10.0-26-amd64", "4.19.0"])
def test_an_older_kernel_is_named(kernel, tmp_path, monkeypatch, release):
    monkeypatch.setattr(user_namespace.platform, "release", lambda: release)
    assert user_namespace.impossible(tmp_path).startswith(f"Linux {release} cannot stack layers")


def test_a_host_without_user_namespaces_is_named(kernel, tmp_path):
    kernel.write_text("0\n")
    assert user_namespace.impossible(tmp_path) == f"user namespaces are switched off ({kernel})"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_a_file_system_that_cannot_do_it_is_named(kernel, tmp_path, monkeypatch, number):
    monkeypatch.setattr(user_namespace.kernel, "idmapped", failing(OSError(number, "no")))
    assert f"the file system of {tmp_path} cannot shift owners" in user_namespace.impossible(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EUSERS, errno.EAGAIN, errno.ENOMEM])
def test_nothing_is_launched_without_one_where_it_cannot_be_made_only_now(kernel, tmp_path, monkeypatch, number):
    """A machine could bring that about."""
    monkeypatch.setattr(user_namespace.kernel, "idmapped", failing(OSError(number, "full")))
    with pytest.raises(CommandExecutionError, match="no user namespace for the machine: .*repeat the command"):
        user_namespace.impossible(tmp_path)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        pytest.param({"highest_id": 65535}, "", id="all ids fit"),
        pytest.param({"highest_id": 197121}, "its image has files of id 197121", id="an id of another system"),
        pytest.param({}, "its image was baked by a former version", id="nobody looked"),
    ],
)
def test_ids_of_an_image_fit_into_a_namespace(image, why):
    assert user_namespace.of_image(image).startswith(why) and bool(why) is bool(user_namespace.of_image(image))


def test_no_two_machines_have_ids_in_common(monkeypatch):
    numbers = iter([5, 5, 6])
    monkeypatch.setattr(user_namespace.secrets, "randbelow", lambda most: next(numbers))
    first = user_namespace.free([])
    assert user_namespace.free([first]) == first + user_namespace.IDS
