"""A small internet in two network namespaces of this process's own: a phone, and everything else, with public addresses.

Nothing has a name and nothing is left: the namespaces end with their last descriptor and process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

_CLONE_NEWNET: Final = 0x40000000
_OWN: Final = Path("/proc/thread-self/ns/net")
_libc: Final = ctypes.CDLL(None, use_errno=True)

NODE: Final = ("10.77.0.1", "fd77::1")
"""The node as the phone reaches it. Private addresses, because no client speaks unencrypted VLESS to public ones."""
PHONE: Final = ("10.77.0.2", "fd77::2")
ORIGIN: Final = ("9.9.9.9", "2620:fe::fe")
"""Public addresses, which neither a node nor a customer's own rules keep anybody from."""


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread in another network namespace: sockets and processes made in the block stay in it. Nothing is awaited inside."""
    with _OWN.open() as before:
        _checked(_libc.setns(namespace, _CLONE_NEWNET))
        try:
            yield
        finally:
            _checked(_libc.setns(before.fileno(), _CLONE_NEWNET))


def _new_namespace() -> int:
    _checked(_libc.unshare(_CLONE_NEWNET))
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _ip(*commands: str) -> None:
    program = shutil.which("ip")
    assert program is not None, "iproute2 is not installed"
    for command in commands:
        subprocess.run([program, *command.split()], check=True, capture_output=True)


@attrs.frozen
class Network:
    """Both namespaces. The test's thread is in that of nodes and origins."""

    phone: int

    def socket_of_phone(self, family: socket.AddressFamily, kind: socket.SocketKind) -> trio.socket.SocketType:
        """A socket on the phone."""
        with inside(self.phone):
            return trio.socket.socket(family, kind)


def _expect_threads(known: set[threading.Thread]) -> None:
    begun = set(threading.enumerate()) - known
    assert not begun, f"threads that began in a namespace stay there, and others may be given them later: {begun}"


@contextlib.contextmanager
def small_internet() -> Iterator[Network]:
    """The two namespaces, for as long as the block lasts. The phone's own route leads to the origin as well, so what is not sent
    through the node arrives with the phone's address. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN."""
    with contextlib.ExitStack() as opened:
        opened.callback(_expect_threads, set(threading.enumerate()))
        before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, before)
        opened.callback(lambda: _checked(_libc.setns(before, _CLONE_NEWNET)))
        phone = _new_namespace()
        opened.callback(os.close, phone)
        rest = _new_namespace()
        opened.callback(os.close, rest)
        _ip("link set lo up")
        _ip(f"link add node0 type veth peer name phone0 netns /proc/{os.getpid()}/fd/{phone}")
        _ip(f"addr add {NODE[0]}/24 dev node0", f"addr add {NODE[1]}/64 dev node0 nodad", "link set node0 up")
        _ip(f"addr add {ORIGIN[0]}/32 dev lo", f"addr add {ORIGIN[1]}/128 dev lo nodad")
        with inside(phone):
            _ip("link set lo up")
            _ip(f"addr add {PHONE[0]}/24 dev phone0", f"addr add {PHONE[1]}/64 dev phone0 nodad", "link set phone0 up")
            _ip(f"route add default via {NODE[0]}", f"-6 route add default via {NODE[1]}")
        yield Network(phone)
