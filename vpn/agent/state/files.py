"""Small durable file operations of the agent, with errors an operator can act on."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from vpn.errors import StoreBusy, StoreUnreadable


def make_private_directory(path: Path) -> None:
    """Create the directory (0700) if it is missing and check that it is usable. Raises StoreUnreadable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnreadable(
            f"cannot make the data directory {path}: {error.strerror}; choose another with --data-dir"
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnreadable(
            f"the data directory {path} cannot be read and written by user id {os.geteuid()}; correct its owner or mode, "
            "or choose another with --data-dir"
        )


def lock_directory(path: Path) -> int:
    """Take the directory for this process and return the descriptor that holds the lock. Raises StoreBusy or
    StoreUnreadable."""
    name = path / "agent.lock"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnreadable(
            f"cannot open {name}: {error.strerror}; correct its owner or mode, or choose another directory with --data-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreBusy(
            f"another node agent (process {holder}) runs on {path}; stop it, or give this one a data directory of its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def read(path: Path) -> bytes | None:
    """The file's content, None if there is none. Raises StoreUnreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnreadable(f"cannot read {path}: {error.strerror}; correct its owner or mode") from error


def replace(path: Path, content: bytes) -> None:
    """Write the file so that after any crash it is either the old or the new one, whole. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the directory's own entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
