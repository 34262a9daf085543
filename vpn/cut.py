"""Cutting exactly one customer's open connections, without touching anybody else's.

Removing a user from Xray refuses new connections and leaves the open ones alone, so they are shut from outside: Xray is
our own child, the kernel hands us duplicates of its sockets (pidfd_getfd), and resetting a duplicate resets the original.
Where that is forbidden (some containers), the kernel destroys the connection by its addresses, which needs
CAP_NET_ADMIN. Never by address alone, and never by restarting Xray: both would hit others.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import socket
import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from vpn import sockdiag
from vpn.xray.lines import Source, source_of

_PIDFD_GETFD: Final = 438
_NOWHERE: Final = struct.pack("=H14x", socket.AF_UNSPEC)
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Way(enum.Enum):
    """How connections can be cut here."""

    DUPLICATE = "cut-duplicate"
    DESTROY = "cut-destroy"
    NONE = "cut-none"


@attrs.frozen
class Flow:
    """An open connection and the bytes that went through it so far, both directions together."""

    source: Source
    moved: int


@attrs.frozen
class Cutter:
    """Cuts connections of the process `pid` on its local `port`. Blocking: run it in a thread."""

    pid: int
    port: int
    way: Way

    def cut(self, sources: AbstractSet[Source]) -> frozenset[Source]:
        """Cut these connections; returns those that were open. Raises OSError if the way is closed to us after all."""
        if not sources or self.way is Way.NONE:
            return frozenset()
        if self.way is Way.DESTROY:
            wanted = [found for found in sockdiag.list_sockets(self.port) if found.source in sources]
            return frozenset(found.source for found in wanted if sockdiag.destroy(found))
        shut = set()
        for source, duplicate in self._connections():
            if source in sources:
                with contextlib.suppress(OSError):  # it closed in this very moment
                    _reset(duplicate)
                    shut.add(source)
        return frozenset(shut)

    def live(self) -> frozenset[Source]:
        """All open connections on the port. Needs no privilege."""
        return frozenset(found.source for found in sockdiag.list_sockets(self.port))

    def flows(self) -> list[Flow]:
        """All open connections on the port with their byte counts. Needs no privilege."""
        return [Flow(found.source, found.moved) for found in sockdiag.list_sockets(self.port, with_bytes=True)]

    def _connections(self) -> Iterator[tuple[Source, socket.socket]]:
        pidfd = os.pidfd_open(self.pid)
        try:
            # names only: a path object for each of thousands would triple the cost
            for number in os.listdir(f"/proc/{self.pid}/fd"):  # noqa: PTH208  # see above
                duplicate = _duplicate(pidfd, int(number))
                if duplicate is None:
                    continue
                with duplicate:
                    source = _far_end(duplicate, self.port)
                    if source is not None:
                        yield source, duplicate
        finally:
            os.close(pidfd)


def way_to_cut(pid: int) -> Way:
    """How connections of this process can be cut from here."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return Way.NONE
    try:
        os.close(_getfd(pidfd, 0))
    except OSError as error:
        forbidden = error.errno in (errno.EPERM, errno.ENOSYS)  # anything else: it is ending
        return Way.DESTROY if forbidden and sockdiag.can_destroy() else Way.NONE
    finally:
        os.close(pidfd)
    return Way.DUPLICATE


def _getfd(pidfd: int, number: int) -> int:
    descriptor = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(descriptor)


def _duplicate(pidfd: int, number: int) -> socket.socket | None:
    try:
        descriptor = _getfd(pidfd, number)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        return None  # closed since it was listed
    try:
        return socket.socket(fileno=descriptor)
    except OSError:  # not a socket
        os.close(descriptor)
        return None


def _reset(duplicate: socket.socket) -> None:
    # Connecting to nowhere resets: what waits to be sent is thrown away and the customer's client knows at once. After a
    # mere shutdown, Xray's clients take the end for half a close and hold on to it for another second.
    if _libc.connect(duplicate.fileno(), _NOWHERE, len(_NOWHERE)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with contextlib.suppress(OSError):  # wakes Xray; the connection is gone already
        duplicate.shutdown(socket.SHUT_RDWR)


def _far_end(duplicate: socket.socket, port: int) -> Source | None:
    if duplicate.family not in (socket.AF_INET, socket.AF_INET6) or duplicate.type != socket.SOCK_STREAM:
        return None
    try:
        if duplicate.getsockname()[1] != port:
            return None
        address, far_port = duplicate.getpeername()[:2]
    except OSError:  # listening, or closed
        return None
    return source_of(address, far_port)
