"""State functions that are fakes, called as a bake calls Salt's: through the handlers of `deferred`."""

from __future__ import annotations

import json
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.states import deferred
from saltext.immutable.builder.states.trace import Trace


class FakeStates:
    """State functions as Salt loads them, on a machine whose kernel refuses all."""

    def __init__(self, tmp_path: Path, at_boot: tuple[str, ...] = ()) -> None:
        self.file = tmp_path / "trace"
        self.trace = Trace(str(self.file), "master", b"key")
        self.deferral = deferred.Deferral(self.trace, at_boot)
        self.called: list[str] = []
        self.config: dict[str, str] = {}
        self.enabled: set[str] = set()
        self.salt = {
            "sysctl.default_config": lambda: str(tmp_path / "99-salt.conf"),
            "sysctl.show": lambda config_file: dict(self.config),
            "mount.set_fstab": self._set_fstab,
            "grains.get": lambda name: "Debian",
            "service.enabled": lambda name: name in self.enabled,
            "service.enable": lambda name: self.enabled.add(name) or True,
        }

    def _set_fstab(self, *entry: object, match_on: str = "auto") -> str:
        self.config |= {"fstab": str(entry), "match_on": match_on}
        return "new"

    def call(self, function: str, code: str, test: bool = False, **arguments: object) -> dict[str, object]:
        """Call a state function whose code is given, through the handler."""
        module = {"__opts__": {"test": test}, "__salt__": self.salt, "self": self, "Error": CommandExecutionError}
        arguments_, _, body = code.partition("|")
        exec(f"def state({arguments_}):\n    self.called.append(name)\n    {body}", module)
        functions = {function: module["state"]}
        self.deferral.wrap(functions)
        wrapped = functions[function]
        self.deferral.wrap(functions)
        assert functions[function] is wrapped, "it is wrapped once"
        self.trace.in_progress.append(f"state the-id ({function}) of web")
        try:
            return functions[function](**arguments)
        finally:
            self.trace.in_progress.pop()

    def noted(self, kind: str = "deferred") -> list[list[str]]:
        """Return what was recorded of a kind."""
        lines = map(json.loads, self.file.read_text().splitlines())
        return [line[1:] for line in lines if line[0] == kind]


RESULT = "return {'name': name, 'result': RESULT, 'changes': {}, 'comment': COMMENT}"
SYSCTL = "name, value, config=None|self.config[name] = value; " + RESULT


def answer(code: str, result: bool, comment: str = "") -> str:
    return code.replace("RESULT", repr(result)).replace("COMMENT", repr(comment))
