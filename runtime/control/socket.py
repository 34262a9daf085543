"""Where the control socket is, and the lock that lets one system at a time have it.

The kernel frees the lock when its holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import select
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.config.config import Config
from runtime.control.protocol import UNAVAILABLE, ControlError
from runtime.errors import ConfigError, StartRefused
from runtime.wording import duration

LONGEST: Final = 107
"""Bytes of a unix socket's path that the kernel takes."""
_LONGEST_NAME: Final = LONGEST - len("/proc/self/fd/0123456789/")
_DIRECTORY: Final = "control"
"""Not where the database's own socket is: that directory may belong to another account."""


def socket_path(config: Config) -> Path:
    """Return `[control] socket`, else `control/<name>.sock` in the installation's data directory: so that two installations,
    which may well have one name, never reach each other's.

    Raises ConfigError when the file's name alone is longer than the kernel takes.
    """
    if config.control.socket is not None:
        base = config.path.parent if config.path is not None else Path()
        path = (base / config.control.socket).absolute()
    else:
        path = (config.data_dir / _DIRECTORY / f"{config.supervisor.name}.sock").absolute()
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise ConfigError(
            f"the name of the control socket, {path.name}, is {len(os.fsencode(path.name))} bytes long and may have "
            f"{_LONGEST_NAME}; set [control] socket (or ATLAS__CONTROL__SOCKET) to a shorter one"
        )
    return path


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path of the same socket, for `bind` and `connect`, that is no longer than the kernel takes; valid inside the `with`.

    Raises OSError when its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    # A link that the kernel makes: it is in no directory where somebody else could have put one, and nothing of it stays behind.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def check_directory(path: Path) -> None:
    """Raise ConfigError when the socket's directory cannot be used, or belongs to somebody else; makes nothing.

    A directory in a place where everybody may write (the temporary directory) could have been made by anybody.
    """
    directory = path.parent
    nearest = next(place for place in (directory, *directory.parents) if os.path.lexists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        what = "may not be written by this user" if nearest.is_dir() else "is no directory"
        raise ConfigError(
            f"the directory of the control socket, {directory}, cannot be used: {nearest} {what}; set [control] socket "
            "to another place"
        )
    if nearest != directory:
        return
    found = directory.stat() if directory.parent.stat().st_uid == os.geteuid() else directory.lstat()
    is_ours = found.st_uid in (os.geteuid(), 0)
    if not stat.S_ISDIR(found.st_mode) or not is_ours or (found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX):
        raise ConfigError(
            f"the directory of the control socket, {directory}, belongs to somebody else (uid {found.st_uid}) or lets "
            "everybody write; set [control] socket to another place"
        )


def make_directory(path: Path) -> None:
    """Make the socket's directory with mode 0700. Raises ConfigError as `check_directory` does, and when it cannot be made."""
    check_directory(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the directory of the control socket cannot be used: {error}; set [control] socket to another place"
        ) from error
    check_directory(path)


def instance_name(socket: Path) -> str:
    """A name for the process that holds the lock of this socket: the same after a restart, never that of another living one.

    So the work that a process left claimed when it died is free for its successor at once.
    """
    return f"{platform.node()}-{hashlib.sha256(os.fsencode(socket)).hexdigest()[:8]}"


class InstanceLock:
    """An exclusive flock on `<socket>.lock`, held by the process until it ends. The file itself stays."""

    def __init__(self, socket: Path) -> None:
        self._path = socket.with_name(socket.name + ".lock")
        self._socket = socket
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock. Raises StartRefused (exit code 69) with the holder's pid and age when another process has it."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StartRefused(f"the lock {self._path} cannot be opened: {error.strerror}", UNAVAILABLE) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(fd)
            os.close(fd)
            raise StartRefused(
                f"another atlas run holds the control socket {self._socket}: {holder}. Stop it with `atlas stop`, or "
                "give this one its own data directory, name or socket (embedded.data_dir, [supervisor] name, [control] socket)",
                UNAVAILABLE,
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "since": time.time()}).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Holder:
    """The process that holds the lock of a socket at this moment; a context manager.

    One that takes the lock later is not seen. The lock itself is not taken here: a system that starts at this moment must
    not be refused because of a look.
    """

    def __init__(self, socket: Path) -> None:
        self._pidfd = -1
        self._said = ""
        try:
            with socket.with_name(socket.name + ".lock").open("rb") as lock:
                self._said = _holder(lock.fileno())
                told = _told(lock.fileno())
            if told is not None:
                self._pidfd = os.pidfd_open(told[0])
        except (OSError, ValueError):
            pass  # there is none, it has ended, or the path names no file

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def wait_until_gone(self, seconds: float) -> None:
        """Wait until the process has ended. Raises ControlError (69) when time is up."""
        if self._pidfd < 0:
            return
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            raise ControlError(f"the process is still stopping after {seconds:g} s: {self._said}", UNAVAILABLE)


def _told(fd: int) -> tuple[int, float] | None:
    try:
        told = json.loads(os.pread(fd, 4096, 0))
        return int(told["pid"]), float(told["since"])
    except (ValueError, KeyError, TypeError):
        return None


def _holder(fd: int) -> str:
    told = _told(fd)
    if told is None:
        return "it is starting at this moment"
    pid, since = told
    return f"pid {pid}, for {duration(max(0.0, time.time() - since))}"
