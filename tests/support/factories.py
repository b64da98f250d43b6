"""An estate whose master, minions and command lines come from pytest-salt-factories.

The factories write the config, start and end the daemons, wait for their start events, build command lines, and bring
what daemons and command lines log into the report of a test that failed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pytestshellutils.exceptions import FactoryNotStarted, FactoryTimeout
from pytestshellutils.utils.processes import ProcessResult
from saltfactories.bases import SaltCli
from saltfactories.daemons.master import SaltMaster
from saltfactories.daemons.minion import SaltMinion
from saltfactories.manager import FactoriesManager

from .estate import MARK, Answer, Estate

OF_SALT = ("enable_legacy_startup_events", "file_buffer_size", "fileserver_list_cache_time", "max_open_files", "peer")
"""What the factory sets otherwise than Salt does: an operator's master has Salt's own defaults."""
LONGEST = 1800.0
"""Seconds that a command may take; a bake of everything on a busy host takes some minutes."""
TAIL = 40
"""Lines of the master's log that an error shows."""


class AsOperatorsHave:
    """What a daemon's factory is mixed with so that its config is Salt's own but for paths, ports and ``overrides``."""

    @classmethod
    def configure(cls, *args: Any, overrides: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return the config; ``overrides`` replace what the factory says, where it would merge lists."""
        found: dict[str, Any] = super().configure(*args, **more)  # type: ignore[misc]
        return {name: value for name, value in found.items() if name not in OF_SALT} | overrides


class Master(AsOperatorsHave, SaltMaster):  # type: ignore[misc]
    """A master in a session of its own: Ctrl-C at the terminal of the tests is not for it."""

    def cmdline(self, *args: str) -> list[str]:
        return ["setsid", *super().cmdline(*args)]


class Minion(AsOperatorsHave, SaltMinion):  # type: ignore[misc]
    """A minion."""


def as_typed(cli: SaltCli) -> SaltCli:
    """Return a command line that passes no option on to Salt but for the config directory and ``--out=json``.

    The factory would pass its own limit on as the time that minions may take to answer.
    """
    cli.__cli_timeout_supported__ = cli.__cli_log_level_supported__ = False
    return cli


def run(cli: SaltCli, *words: str, log: Callable[[], str] = str, **more: Any) -> Answer:
    """Run a command line to its end; ``more`` is what the factory's ``run`` takes, ``log`` what else an error shows."""
    command, began = (Path(cli.script_name).name, *words), time.monotonic()
    try:
        cli.run(*words, _timeout=LONGEST, **more)
    except FactoryTimeout as err:
        late = f"{' '.join(command)} did not end within {LONGEST:.0f} s, and was ended"
        raise AssertionError(f"{late}: {_said(err.process_result)}{log()}") from err
    finally:
        ended = cli.terminate()  # all that it wrote; from what run() returns the factory has taken the answer out
    return Answer(command, ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)


class FactoryEstate(Estate):
    """An estate as `Estate` says, with ``factories`` as the fixture ``salt_factories`` gives them."""

    CONFIG_DIR = "run/conf"
    PKI_DIR = "run/pki"

    def __init__(self, home: Path, factories: FactoriesManager, **more: Any) -> None:
        super().__init__(home, **more)
        self._factories = factories
        self.master: SaltMaster | None = None

    # The master, and minions beside it

    def start_master(self) -> None:
        self.master = self._factories.salt_master_daemon(
            f"{self.home.name}_master",
            defaults={"root_dir": str(self.home / "run")},
            overrides={"log_level_logfile": "warning", **self.master_config()},
            factory_class=Master,
            # Or it would accept each key that comes; here minions enrol as the pack lets them.
            on_auth_event_callback=lambda master, event: None,
        )
        self._start(self.master)

    @property
    def master_pid(self) -> int:
        return (self.master.pid if self.master else None) or 0

    @property
    def ports(self) -> tuple[int, int]:
        assert self.master is not None, "there are no ports before the master starts"
        return self.master.config["publish_port"], self.master.config["ret_port"]

    def end(self) -> None:
        if self.master and self.master.is_running():
            self.master.terminate()
        super().end()

    @contextmanager
    def configured(self, **config: Any) -> Iterator[None]:
        """Kill the master and start it again with further config, for a while."""
        file = self.etc / "master"
        before = file.read_text()
        try:
            self._restart(yaml.safe_dump({**yaml.safe_load(before), **config}))
            yield
        finally:
            self._restart(before)

    def _restart(self, config: str) -> None:
        assert self.master is not None, "no master has been started"
        self.master.terminate()
        (self.etc / "master").write_text(config)
        self._start(self.master)

    @contextmanager
    def minion(self, minion_id: str, home: Path, **config: Any) -> Iterator[SaltMinion]:
        """Run a minion as root on this host, with a root directory of its own; it listens to our master."""
        assert self.master is not None, "no master has been started"
        place = {"master": self.master.config["interface"], "publish_port": self.ports[0]}
        minion = self.master.salt_minion_daemon(
            minion_id,
            defaults={"root_dir": str(home)},
            overrides={"user": "root", **place, **config},
            factory_class=Minion,
        )
        self.expect(minion_id)
        try:
            self._start(minion)
            yield minion
        finally:
            minion.terminate()
            self.salt_key("--yes", f"--delete={minion_id}")

    def _start(self, daemon: SaltMaster | SaltMinion) -> None:
        daemon.environ = self._environment()
        try:
            daemon.start()
        except FactoryNotStarted as err:
            script = Path(daemon.script_name).name
            raise AssertionError(
                f"{script} {daemon.id} does not start: {_said(err.process_result)}{self._log()}"
            ) from err

    def _log(self) -> str:
        file = self.home / "run/logs/master.log"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        return "\n".join([f"the end of {file}:", *lines[-TAIL:]])

    def _environment(self) -> dict[str, str]:
        # The factory would have each process compile the pack again.
        return {**os.environ, MARK: str(self.home), "PYTHONDONTWRITEBYTECODE": ""}

    # Command lines

    def cli(self, script: str, **more: Any) -> SaltCli:
        """Return a command line of the master's, ``salt``, ``salt-run``, ``salt-key`` or ``salt-ssh``."""
        make = getattr(self.master, f"{script.replace('-', '_')}_cli")
        return as_typed(make(environ=self._environment(), **more))

    def run(self, cli: SaltCli, *words: str, **more: Any) -> Answer:
        """Run a command line to its end; ``more`` is what the factory's ``run`` takes."""
        return run(cli, *words, log=self._log, **more)

    def _run(self, script: str, words: tuple[str, ...]) -> Answer:
        if script == "salt":
            return self.run(self.cli(script), *words[1:], minion_tgt=words[0])
        return self.run(self.cli(script), *words)

    def popen(self, *words: str) -> subprocess.Popen[str]:
        # The factory gives away what a command wrote when it has ended, and ends it with its children. Who reads
        # along, or kills it alone, needs pipes and a session of its own.
        cli = self.cli("salt-run")
        return subprocess.Popen(
            cli.cmdline(*words),
            env=cli.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def typed(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """Return ``salt-run`` as a person types it, and its environment: what it prints is text, not JSON."""
        cli = self.cli("salt-run")
        cli.__cli_output_supported__ = False
        return cli.cmdline(*words), cli.environ


def _said(ended: ProcessResult | None) -> str:
    return f"it wrote\n{ended.stderr}{ended.stdout}\n" if ended else "it wrote nothing\n"
