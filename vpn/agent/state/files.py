"""Small durable file operations of the agent, with errors an operator can act on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from vpn.errors import StoreBusy, StoreUnreadable

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"What the kernel says where nothing is broken, and only room is missing."

_UNFINISHED: Final = ".new"
_PID_BYTES: Final = 32


def remedy(error: OSError) -> str:
    """What to do about a file that could not be opened or written, in words for the end of an error."""
    if error.errno in NO_ROOM:
        return "free space there, or raise the quota; nothing is damaged"
    if error.errno == errno.EROFS:
        return "mount it writable"
    return "correct its owner or mode"


def make_private_directory(path: Path) -> None:
    """Create the directory (0700) if it is missing and check that it is usable. Raises StoreUnreadable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnreadable(
            f"cannot make the data directory {path}: {error.strerror}; {remedy(error)}, or choose another with --data-dir"
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnreadable(
            f"the data directory {path} cannot be read and written by user id {os.geteuid()}; correct its owner or mode, "
            "or choose another with --data-dir"
        )


def lock_directory(path: Path) -> int:
    """Take the directory for this process and return the descriptor that holds the lock. Raises StoreBusy or
    StoreUnreadable. A full disk is no reason: only the process id, for the error of another agent, may then be missing."""
    name = path / "agent.lock"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnreadable(
            f"cannot open {name}: {error.strerror}; {remedy(error)}, or choose another directory with --data-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, _PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreBusy(
            f"another node agent (process {holder}) runs on {path}; stop it, or give this one a data directory of its own"
        ) from None
    # in place and always of one length, so that it needs room the first time at most
    content = f"{os.getpid()}\n".encode().rjust(_PID_BYTES)
    try:
        if os.pwrite(descriptor, content, 0) < len(content):
            os.ftruncate(descriptor, 0)
    except OSError as error:
        if error.errno not in NO_ROOM:
            os.close(descriptor)
            raise StoreUnreadable(
                f"cannot write {name}: {error.strerror}; {remedy(error)}, or choose another directory with --data-dir"
            ) from error
    return descriptor


def remove_unfinished(directory: Path) -> None:
    """Remove what a process that was killed left half written. Only for who holds the directory's lock."""
    for path in directory.glob(f"*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            path.unlink()


def read(path: Path) -> bytes | None:
    """The file's content, None if there is none. Raises StoreUnreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnreadable(f"cannot read {path}: {error.strerror}; {remedy(error)}") from error


def replace(path: Path, content: bytes) -> None:
    """Write the file so that after any crash it is either the old or the new one, whole. Raises OSError, and then leaves nothing
    of the new one, which would take the room that others need."""
    temporary = path.with_name(path.name + _UNFINISHED)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the directory's own entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
