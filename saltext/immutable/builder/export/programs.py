"""Programs that are fed a stream."""

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
    """Return where a program of this host is; a service's PATH may lack the directories of an administrator."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise CommandExecutionError(f"{program} is not installed on this host: apt-get install {package}")
    return found


@contextmanager
def fed(
    command: Sequence[str | Path], out: IO[bytes] | None = None, env: Mapping[str, str] | None = None
) -> Iterator[IO[bytes]]:
    """Start a program and give its input; afterwards wait for its end, and raise with what it said if it failed.

    ``out``: the file that its output goes to; ``env``: what is added to its environment.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=out or said, stderr=said, env={**os.environ, **(env or {})}
            )
        except FileNotFoundError as err:
            raise CommandExecutionError(f"{words[0]} is not installed on this host ({err})") from err
        broken = None
        with process:
            assert process.stdin
            try:
                yield process.stdin
                process.stdin.close()
            except BrokenPipeError as err:  # it ended before its input did, and says why
                broken = err
                _close(process.stdin)
            except BaseException:
                process.kill()
                _close(process.stdin)
                raise
        if process.returncode or broken:
            said.seek(0)
            text = tail(said.read().decode(errors="replace").strip())
            raise CommandExecutionError(f"{words[0]} exited with {process.returncode}: {text}") from broken


def _close(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()
