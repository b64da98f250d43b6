"""What the pack keeps on a host: one directory, who works in it, and the commands run there.

::

    <root>/layers/<digest>/      fs/ (the difference), layer.json (what it is), manifest.gz (every file)
    <root>/l/<16 hex>            short links to layers/<digest>/fs: overlay's options have a page to fit in
    <root>/keys/<key>            the digest that this key led to last
    <root>/images/<digest>/      image.json, and seal/: the one file above the layers
    <root>/machines/<minion id>/ machine.json, console.log, var/ ...
    <root>/consoles/             consoles of machines that are gone
    <root>/pki/<bake id>/        key of a bake that is under way
    <root>/cache/                downloads
    <root>/tmp/<random>/         work under way; its `lock` is held by the process that works
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

_DISCARDED = "discarded-"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
FOLDERS = ("layers", "l", "keys", "images", "machines", "consoles", "pki", "cache", "tmp")


@dataclass(frozen=True)
class Host:
    """The pack's directory on this host."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        if name in FOLDERS:
            return self.root / name
        raise AttributeError(name)

    def prepare(self) -> None:
        """Create the folders; what is in them is for root only (layers hold files of all owners)."""
        need_root()
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    @contextmanager
    def lock(self, name: str, wait: float = 60.0) -> Iterator[None]:
        """Hold the lock ``name`` of this host; the kernel releases it when we die."""
        with (self.root / f".{name}.lock").open("w") as file:
            deadline = time.monotonic() + wait
            while not _locked(file.fileno()):
                if time.monotonic() > deadline:
                    raise CommandExecutionError(f"{file.name} has been held by another process for {wait:.0f} s")
                time.sleep(0.02)
            yield

    def held(self, name: str) -> bool:
        """Tell whether any process holds the lock ``name``."""
        with (self.root / f".{name}.lock").open("a") as file:
            return not _locked(file.fileno())

    @contextmanager
    def room(self) -> Iterator[None]:
        """Say in a sentence that the disk is full, and what to do then."""
        try:
            yield
        except OSError as err:
            if err.errno not in _NO_ROOM:
                raise
            raise CommandExecutionError(
                f"{err.strerror}: {err.filename or self.root} on the host of the images and machines; what was under "
                "way is undone; make room, salt-run image.prune for one, and give the order again"
            ) from err

    def discard(self, folder: Path) -> None:
        """Take a folder away in one step, then remove what is in it; what a kill leaves is removed by the next."""
        self.set_aside(folder)
        self.remove_discarded()

    def set_aside(self, folder: Path) -> None:
        """Take a folder away in one step, to be removed later."""
        if folder.exists():
            folder.rename(self.root / "tmp" / f"{_DISCARDED}{secrets.token_hex(6)}")

    def remove_discarded(self) -> None:
        """Remove what was taken away."""
        for discarded in (self.root / "tmp").glob(f"{_DISCARDED}*"):
            remove(discarded)

    @property
    def tag(self) -> str:
        """A short name for this directory: another one on the same host may have machines of the same ids."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:6]

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give a directory that goes away afterwards: now, or by `sweep` if we are killed."""
        place = self.root / "tmp" / secrets.token_hex(6)
        with ExitStack() as undo:
            undo.callback(remove, place)
            with self.lock("tmp"):
                place.mkdir()
                lock = undo.enter_context((place / "lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield place

    def abandoned(self) -> list[Path]:
        """Return the workspaces whose process is gone."""
        with self.lock("tmp"):
            return [place for place in sorted((self.root / "tmp").iterdir()) if _abandoned(place)]


def this_boot() -> str:
    """Return the id that the kernel gave this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def systemd_here() -> bool:
    """Tell whether systemd is pid 1 here."""
    return Path("/run/systemd/system").is_dir()


def need_root() -> None:
    """Raise unless we are root."""
    if os.geteuid() != 0:
        raise CommandExecutionError("this needs root on the host where images are baked and machines run")


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _abandoned(place: Path) -> bool:
    try:
        with (place / "lock").open("r+") as lock:
            return _locked(lock.fileno())
    except FileNotFoundError:
        return True


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it said goes into the error if it fails.

    On an exception (Ctrl-C among them) the command is ended before the exception goes on.
    """
    words = [str(word) for word in command]
    try:
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
        ) as process:
            try:
                out, err = process.communicate(stdin)
            except BaseException:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
    except FileNotFoundError as err_:
        raise CommandExecutionError(f"{words[0]} is not installed on this host ({err_})") from err_
    if check and process.returncode:
        said = tail(f"{err}\n{out}".strip())
        raise CommandExecutionError(f"{' '.join(words)[:400]} exited with {process.returncode}:\n{said}")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def tail(text: str, lines: int = 40) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def remove(place: Path) -> None:
    """Remove a tree, or a file of any kind, if it is there; somebody else may be removing it at the same time."""
    while place.is_dir() and not place.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(place)
    place.unlink(missing_ok=True)


def write(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that it is either the old one or the new one, also after a power cut."""
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        new.rename(file)
    except BaseException:
        with suppress(FileNotFoundError):
            new.unlink()
        raise
    sync_directory(file.parent)


def sync_directory(folder: Path) -> None:
    """Make the names in a directory last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
