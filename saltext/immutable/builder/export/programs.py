"""Run programs that read their input from a pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import tail


def find(program: str, package: str) -> str:
    """Return the path of a program of this host, also where the PATH of a service lacks /usr/sbin.

    Raises CommandExecutionError that names the Debian package where it is missing.
    """
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise CommandExecutionError(f"{program} is not installed on this host; run apt-get install {package}")
    return found


@contextmanager
def piped(
    command: Sequence[str | Path], out: IO[bytes] | None = None, env: Mapping[str, str] | None = None
) -> Iterator[IO[bytes]]:
    """Start a program and give its standard input; at the end wait for the program.

    ``out``: the file for its output; ``env``: added to its environment. Raises CommandExecutionError with its output if
    it fails or is not installed.
    """
    command_line = [str(word) for word in command]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command_line,
                stdin=subprocess.PIPE,
                stdout=out or output,
                stderr=output,
                env={**os.environ, **(env or {})},
            )
        except FileNotFoundError as err:
            raise CommandExecutionError(
                f"{command_line[0]} is not installed on this host ({err}); install it there"
            ) from err
        broken = None
        with process:
            assert process.stdin
            try:
                yield process.stdin
                process.stdin.close()
            except BrokenPipeError as err:  # the program ended early; its output says why
                broken = err
                _close(process.stdin)
            except BaseException:
                process.kill()
                _close(process.stdin)
                raise
        if process.returncode or broken:
            output.seek(0)
            text = tail(output.read().decode(errors="replace").strip())
            raise CommandExecutionError(
                f"{command_line[0]} exited with {process.returncode}; fix what it says, and export again:\n{text}"
            ) from broken


def _close(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()
