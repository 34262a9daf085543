"""Open connections of a process: listed and measured by the kernel, and exactly one customer's cut, without touching
anybody else's.

Removing a user from Xray refuses new connections and leaves the open ones alone, so they are shut from outside: Xray is
our own child, the kernel hands us duplicates of its sockets (pidfd_getfd), and resetting a duplicate resets the
original.
Where that is forbidden (some containers), the kernel destroys the connection by its addresses (netlink, SOCK_DESTROY),
which
needs CAP_NET_ADMIN. Never by address alone, and never by restarting Xray: both would hit others.
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
from ipaddress import ip_address
from typing import Final

import attrs

from vpn.xray.access_log import Source, source_of

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_SOCK_DESTROY: Final = 21
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
# every state but LISTEN, TIME_WAIT and CLOSE
_STATES: Final = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11)
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST_BODY: Final = struct.Struct("=BBBBI")
_SOCKET_ID: Final = struct.Struct(">HH16s16s")
_MESSAGE: Final = struct.Struct("=BBBB")
_MESSAGE_BYTES: Final = 72
_ATTRIBUTE: Final = struct.Struct("=HH")
_INFO: Final = 2
_INFO_BYTES: Final = struct.Struct("=QQ")  # of struct tcp_info: bytes acknowledged, bytes received
_INFO_BYTES_AT: Final = 120
_NO_COOKIE: Final = b"\xff" * 8


@attrs.frozen
class TcpSocket:
    """A TCP socket of this machine: the far end, what the kernel needs to find it again, and the bytes that went through it so
    far, both directions together (0 if they were not asked for)."""

    source: Source
    family: int
    identity: bytes
    inode: int
    moved: int = 0


def list_sockets(port: int, *, with_bytes: bool = False) -> list[TcpSocket]:
    """Open connections whose local port is `port`, of any process. Needs no privilege. Raises OSError."""
    extensions = 1 << (_INFO - 1) if with_bytes else 0
    found: list[TcpSocket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        wanted = _SOCKET_ID.pack(port, 0, b"", b"") + struct.pack("=I", 0) + _NO_COOKIE
        request = _REQUEST_BODY.pack(family, socket.IPPROTO_TCP, extensions, 0, _STATES) + wanted
        found += [_socket(body) for body in _ask(_SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, request)]
    return found


def destroy(found: TcpSocket) -> bool:
    """Reset this connection at once; False if it is closed already. Needs CAP_NET_ADMIN: raises PermissionError without,
    OSError(EOPNOTSUPP) where the kernel cannot."""
    request = _REQUEST_BODY.pack(found.family, socket.IPPROTO_TCP, 0, 0, _STATES) + found.identity
    try:
        for _ in _ask(_SOCK_DESTROY, _REQUEST | _ACK, request):
            pass
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def can_destroy() -> bool:
    """Whether the kernel lets this process destroy connections: it needs CAP_NET_ADMIN and SOCK_DESTROY."""
    no_socket = _SOCKET_ID.pack(1, 1, b"\x7f\0\0\1", b"\x7f\0\0\1") + struct.pack("=I", 0) + _NO_COOKIE
    try:
        destroy(TcpSocket(Source("127.0.0.1", 1), socket.AF_INET, no_socket, 0))
    except OSError:
        return False
    return True


def _ask(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(2.0)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            data = netlink.recv(1 << 18)
            at = 0
            while at + _HEADER.size <= len(data):
                size, answer, _, _, _ = _HEADER.unpack_from(data, at)
                content = data[at + _HEADER.size : at + size]
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (code,) = struct.unpack_from("=i", content)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield content
                at += (size + 3) & ~3


def _socket(body: bytes) -> TcpSocket:
    family, _, _, _ = _MESSAGE.unpack_from(body)
    identity = body[4:52]
    _, far_port, _, far = _SOCKET_ID.unpack_from(identity)
    (inode,) = struct.unpack_from("=I", body, 68)
    address = ip_address(far if family == socket.AF_INET6 else far[:4])
    return TcpSocket(source_of(str(address), far_port), family, identity, inode, _moved(body[_MESSAGE_BYTES:]))


def _moved(attributes: bytes) -> int:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == _INFO and size >= _ATTRIBUTE.size + _INFO_BYTES_AT + _INFO_BYTES.size:
            return sum(_INFO_BYTES.unpack_from(attributes, at + _ATTRIBUTE.size + _INFO_BYTES_AT))
        at += max((size + 3) & ~3, _ATTRIBUTE.size)
    return 0


_PIDFD_GETFD: Final = 438
_NOWHERE: Final = struct.pack("=H14x", socket.AF_UNSPEC)
_libc: Final = ctypes.CDLL(None, use_errno=True)


class CutMethod(enum.Enum):
    """How connections can be cut on this host: by duplicates of Xray's sockets, by the kernel's SOCK_DESTROY, or not at
    all. The value is the capability that the node reports.
    """

    DUPLICATE = "cut-duplicate"
    DESTROY = "cut-destroy"
    NONE = "cut-none"


@attrs.frozen
class ConnectionTraffic:
    """An open connection and the bytes that went through it so far, both directions together."""

    source: Source
    moved: int


@attrs.frozen
class Cutter:
    """Cuts connections of the process `pid` on its local `port`, by `method`. Blocking: run it in a thread."""

    pid: int
    port: int
    method: CutMethod

    def cut(self, sources: AbstractSet[Source]) -> frozenset[Source]:
        """Cut these connections; returns those that were open. Raises OSError if the method is forbidden after all."""
        if not sources or self.method is CutMethod.NONE:
            return frozenset()
        if self.method is CutMethod.DESTROY:
            wanted = [found for found in list_sockets(self.port) if found.source in sources]
            return frozenset(found.source for found in wanted if destroy(found))
        shut = set()
        for source, duplicate in self._connections():
            if source in sources:
                with contextlib.suppress(OSError):  # it closed in this very moment
                    _reset(duplicate)
                    shut.add(source)
        return frozenset(shut)

    def live(self) -> frozenset[Source]:
        """All open connections on the port. Needs no privilege."""
        return frozenset(found.source for found in list_sockets(self.port))

    def flows(self) -> list[ConnectionTraffic]:
        """All open connections on the port with their byte counts. Needs no privilege."""
        return [ConnectionTraffic(found.source, found.moved) for found in list_sockets(self.port, with_bytes=True)]

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


def cut_method(pid: int) -> CutMethod:
    """How connections of this process can be cut from here. NONE if the process is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return CutMethod.NONE
    try:
        os.close(_getfd(pidfd, 0))
    except OSError as error:
        forbidden = error.errno in (errno.EPERM, errno.ENOSYS)  # anything else: it is ending
        return CutMethod.DESTROY if forbidden and can_destroy() else CutMethod.NONE
    finally:
        os.close(pidfd)
    return CutMethod.DUPLICATE


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
