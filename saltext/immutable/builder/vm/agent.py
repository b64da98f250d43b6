"""The agent in a machine with a kernel of its own: runs the commands that its host sends, one after the other.

Each line of its serial port is a question in JSON: number, command, env, stdin. Each answer is one, too: number, code,
stdout, stderr. It runs with the image's own Python, by itself, so it imports the standard library only.
"""

from __future__ import annotations

import glob
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NOT_FOUND = 127


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Run the command of a question and return its answer."""
    try:
        done = subprocess.run(
            question["command"],
            env=question.get("env") or None,
            cwd="/",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            **({"stdin": subprocess.DEVNULL} if question.get("stdin") is None else {"input": question["stdin"]}),
        )
    except OSError as err:
        return {"number": question["number"], "code": _NOT_FOUND, "stdout": "", "stderr": str(err)}
    # As the shell says it: a signal is more than 128.
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return {"number": question["number"], "code": code, "stdout": done.stdout, "stderr": done.stderr}


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
            left = json.dumps(answer(question)).encode() + b"\n"
            while left:
                left = left[stream.write(left) :]


if __name__ == "__main__":
    main()
