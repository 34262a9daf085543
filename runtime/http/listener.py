"""A listening TCP socket of an actor or an agent."""

from __future__ import annotations

import os
import socket
from typing import Final

from runtime.errors import StartRefused

_BACKLOG: Final = 256
_UNACKNOWLEDGED: Final = 10_000
SMALL_SEND_BUFFER: Final = 64 * 1024
"""Bytes. By default a client that does not read can make the kernel keep almost 4 MB, and it is noticed only after that."""


def open_listener(host: str, port: int, *, send_buffer: int | None = None) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError.

    The kernel drops a connection of it whose client acknowledges nothing, or keeps its window shut, for ten seconds. With
    `send_buffer` it buffers no more than about so many bytes of an answer that is not read; without, it measures by itself, as
    large answers over long distances need.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit both.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED)
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def listen(section: str, host: str, port: int) -> socket.socket:
    """A listening socket with a small send buffer. Raises StartRefused (exit code 69) naming the settings `<section>.host` and
    `.port`."""
    try:
        return open_listener(host, port, send_buffer=SMALL_SEND_BUFFER)
    except OSError as error:
        raise StartRefused(
            f"the {section} cannot listen on {host} port {port}: {error.strerror}; stop the program that has it, "
            f"or set {section}.port to another (0 takes a free one)",
            exit_code=os.EX_UNAVAILABLE,
        ) from error


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Its address as a URL."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
