"""The agent in a machine with a kernel of its own: runs the commands that its host sends, one after the other.

Each line of its serial port is a question in JSON: number, command, env, stdin. Each answer is one, too: number, code,
stdout, stderr. While a command runs, its number alone says every few seconds that the machine lives. The agent runs
with the image's own Python, by itself, so it imports the standard library only.
"""

from __future__ import annotations

import glob
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ALIVE = 5.0
"""Seconds after which the agent says again that a command runs."""
_NOT_FOUND = 127


def answers(question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the command of a question; yield its number alone every few seconds while it runs, then its answer."""
    number, text = question["number"], question.get("stdin")
    try:
        process = subprocess.Popen(
            question["command"],
            env=question.get("env") or None,
            cwd="/",
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=_as_any_other,
        )
    except (OSError, TypeError, ValueError) as err:
        yield {"number": number, "code": _NOT_FOUND, "stdout": "", "stderr": str(err)}
        return
    while process.returncode is None:
        try:
            out, errors = process.communicate(text, timeout=ALIVE)
        except subprocess.TimeoutExpired:
            text = None  # is being written
            yield {"number": number}
    # As the shell says it: a signal is more than 128.
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    yield {"number": number, "code": code, "stdout": out, "stderr": errors}


def _as_any_other() -> None:
    """Let the kernel end this process where memory is short; it spares the agent itself."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")


def questions(stream: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the questions that come in; what is none, as half of one, is left out."""
    left = b""
    while True:
        found = stream.read(1 << 16)
        if not found:  # nobody is at the other end
            time.sleep(0.05)
            continue
        *lines, left = (left + found).split(b"\n")
        for line in lines:
            try:
                question = json.loads(line)
            except ValueError:
                continue
            if isinstance(question, dict) and {"number", "command"} <= question.keys():
                yield question


def port(name: str) -> str:
    """Return the device of the serial port with a name; wait until it is there."""
    while True:
        for file in glob.glob("/sys/class/virtio-ports/*/name"):
            if Path(file).read_text().strip() == name:
                return f"/dev/{Path(file).parent.name}"
        time.sleep(0.1)


def main() -> None:
    """Answer until the machine ends."""
    with open(port(sys.argv[1]), "r+b", buffering=0) as stream:
        for question in questions(stream):
            for each in answers(question):
                left = json.dumps(each).encode() + b"\n"
                while left:
                    left = left[stream.write(left) :]


if __name__ == "__main__":
    main()
