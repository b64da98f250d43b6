"""A machine that does not get far, or ends while it is tested, fails a test; the bake itself goes on."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import phases
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.vm import tests
from saltext.immutable.machines import description, qemu

ORDER = {"bake_id": "web-bake", "within": 60.0, "image": "1" * 64, "tests": {"recipe": "web", "tests": [{"sls": ""}]}}
MACHINE = description.Machine("web-bake", "1" * 64, (), {}, "im0", "10.0.0.0/24", emulated="there is no /dev/kvm")


@pytest.fixture
def host(host, monkeypatch):
    (host.pki / "web-bake").mkdir(parents=True)
    monkeypatch.setattr(qemu, "require", lambda: None)
    monkeypatch.setattr(tests, "_machine", lambda host, workspace, order: MACHINE)
    monkeypatch.setattr(tests.machines, "destroy", lambda host, minion_id: True)
    return host


def test_a_kernel_that_does_not_get_far_fails_the_first_test(host, monkeypatch):
    def launch(host, order):
        raise qemu.NotBooted("the machine did not boot; find the reason in its console:\nKernel panic")

    monkeypatch.setattr(tests.machines, "launch", launch)
    [result] = tests.test_disk(host, ORDER)
    assert (result["name"], result["phase"], result["recipe"]) == ("boots from its disk", "vm", "web")
    assert not result["passed"] and result["message"].endswith("Kernel panic")


def test_it_is_said_that_tests_are_emulated(host, monkeypatch):
    monkeypatch.setattr(tests.machines, "launch", lambda host, order: MACHINE)
    monkeypatch.setattr(run, "boots", lambda *rest: {"passed": False})
    said: list[str] = []
    with phases.report_to(said.append):
        tests.test_disk(host, ORDER)
    assert said == ["in emulation, which takes about ten times as long: there is no /dev/kvm"]


@pytest.mark.parametrize("phase", ["inside", "booted", "vm"])
def test_a_machine_that_ends_while_it_is_tested_fails_a_test(monkeypatch, phase):
    class Ended:
        def run(self, command, **how):
            raise CommandExecutionError("the machine ended while it ran a command")

    [result] = run.run_tests(Ended(), ORDER, phase, [])
    assert (result["name"], result["phase"], result["passed"]) == ("tests", phase, False)
    assert result["message"] == "the machine ended while it ran a command"


def test_systemd_is_asked_by_a_signal_to_shut_down(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(description.Machine, "run", lambda self, command: asked.append(command[-1]))
    machine = qemu.VirtualMachine("/vm", "/kernel", "/initrd", "", (), 1, 1)
    description.Machine("web-bake", "", (), {}, "im0", "10.0.0.0/24", vm=machine).power_off()
    assert asked == ["kill -38 1"]
