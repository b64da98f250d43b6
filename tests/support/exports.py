"""Exports that are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.estate import Estate, wait_for


def killed_export(estate: Estate, image: str, format: str, folder: Path) -> None:
    """Kill an export into an empty folder: there is no file of it, and the next one leaves nothing but its own."""
    place = folder / f"image.{format}"
    words = ("image.export", image, f"format={format}", f"target={place}")
    with estate.popen(*words) as process:
        wait_for(lambda: process.poll() is not None or _size(folder) > 1 << 20, 60)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
    assert not place.exists()
    assert len(os.listdir(folder)) >= 1
    wait_for(lambda: not estate.leaks()["processes"], 30)
    estate.salt_run(*words)
    assert os.listdir(folder) == [place.name]


def _size(folder: Path) -> int:
    """Return the bytes of all that is in a folder; files come and go."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.lstat(Path(place, name)).st_size
            except FileNotFoundError:
                continue
    return found
