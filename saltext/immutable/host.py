"""What the pack keeps on a host: one directory, locks, workspaces, and how commands are run.

::

    <root>/layers/<digest>/      fs/ (the difference), layer.json (its metadata), manifest.gz (all of its files)
    <root>/l/<16 hex>            short links to layers/<digest>/fs, because mount options must fit into one page
    <root>/keys/<key>            the digest of the layer that was built last for this key
    <root>/images/<digest>/      image.json, proof.json, and seal/: the layer on top of the others
    <root>/machines/<minion id>/ machine.json, console.log, var/ ...
    <root>/consoles/             console logs of machines that were destroyed
    <root>/pki/<bake id>/        the key pair of a running bake
    <root>/cache/                downloads
    <root>/tmp/<random>/         a workspace; the process that uses it holds its file `lock`
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable import kernel

_DISCARDED = "discarded-"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FOLDERS = ("layers", "l", "keys", "images", "machines", "consoles", "pki", "cache", "damaged", "tmp")


@dataclass(frozen=True)
class Host:
    """The pack's directory on this host."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        if name in FOLDERS:
            return self.root / name
        raise AttributeError(name)

    def prepare(self) -> None:
        """Create the folders, readable by root only: layers hold files of all owners. Raises unless we are root."""
        require_root()
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    @contextmanager
    def lock(self, name: str, wait: float = 60.0) -> Iterator[None]:
        """Hold the lock ``name`` of this host. The kernel releases it when this process dies.

        ``wait``: seconds after which CommandExecutionError is raised, where another process keeps the lock.
        """
        with (self.root / f".{name}.lock").open("w") as file:
            deadline = time.monotonic() + wait
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise CommandExecutionError(
                        f"{file.name} is still held by another process after {wait:.0f} s; repeat the command when "
                        f"that has ended (fuser -v {file.name} on this host names it)"
                    )
                time.sleep(0.02)
            yield

    def is_locked(self, name: str) -> bool:
        """Return whether any process holds the lock ``name``."""
        with (self.root / f".{name}.lock").open("a") as file:
            return not _try_lock(file.fileno())

    @contextmanager
    def explain_full_disk(self) -> Iterator[None]:
        """Raise CommandExecutionError, with what to do, in place of the OSError of a full disk."""
        try:
            yield
        except OSError as err:
            if err.errno not in _DISK_FULL:
                raise
            raise CommandExecutionError(
                f"{err.strerror}: {err.filename or self.root} on the host of the images and machines. The command was "
                "undone; free some space (salt-run image.prune) and repeat it"
            ) from err

    def discard(self, folder: Path) -> None:
        """Remove a folder: rename it away in one step, then delete its content. After a kill the next call finishes."""
        self.take_away(folder)
        self.remove_discarded()

    def take_away(self, folder: Path) -> None:
        """Rename a folder away in one step; `remove_discarded` deletes it later."""
        if folder.exists():
            folder.rename(self.root / "tmp" / f"{_DISCARDED}{secrets.token_hex(6)}")

    def remove_discarded(self) -> None:
        """Delete all folders that were taken away."""
        for discarded in (self.root / "tmp").glob(f"{_DISCARDED}*"):
            remove(discarded)

    @property
    def tag(self) -> str:
        """A short name for this directory, part of the names of its machines.

        Another directory on the same host may have machines of the same minion ids.
        """
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:6]

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give an empty directory and remove it afterwards. After a kill `sweep` removes it."""
        folder = self.root / "tmp" / secrets.token_hex(6)
        with ExitStack() as undo:
            undo.callback(remove, folder)
            with self.lock("tmp"):
                folder.mkdir()
                lock = undo.enter_context((folder / "lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder

    def abandoned(self) -> list[Path]:
        """Return the workspaces whose process is gone."""
        with self.lock("tmp"):
            return [folder for folder in sorted((self.root / "tmp").iterdir()) if _is_abandoned(folder)]


def this_boot() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def systemd_here() -> bool:
    """Return whether systemd is pid 1 here."""
    return Path("/run/systemd/system").is_dir()


def require_root() -> None:
    """Raise CommandExecutionError unless this process is root."""
    if os.geteuid() != 0:
        raise CommandExecutionError("images are baked and machines run by root; repeat this as root on that host")


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_abandoned(workspace: Path) -> bool:
    try:
        with (workspace / "lock").open("r+") as lock:
            return _try_lock(lock.fileno())
    except FileNotFoundError:
        return True


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
    first: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its exit code and output.

    ``env`` is added to the environment; ``stdin`` is its input; ``first`` is called in its process before it begins.
    Raises CommandExecutionError if the command is not installed, and with ``check`` if it fails, with the end of its
    output. On an exception here, Ctrl-C among them, the command is ended first.
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
            preexec_fn=first,
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
        raise CommandExecutionError(f"{words[0]} is not installed on this host ({err_}); install it there") from err_
    if check and process.returncode:
        output = tail(f"{err}\n{out}".strip())
        raise CommandExecutionError(
            f"{' '.join(words)[:400]} exited with {process.returncode}; fix what it says, and repeat the command:\n"
            f"{output}"
        )
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def tail(text: str, lines: int = 40) -> str:
    """Return the last ``lines`` lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def remove(path: Path) -> None:
    """Remove a directory tree or a file of any kind.

    It may be absent, and another process may be removing it at the same time.
    """
    try:
        _remove(path)
    except PermissionError:  # root in a machine can make files that nobody changes (chattr +i)
        kernel.clear_flags(path)
        _remove(path)


def _remove(path: Path) -> None:
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def write(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file in one step: it has the old text or the new one, also after a power failure."""
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
    """Write the entries of a directory to the disk (fsync)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
