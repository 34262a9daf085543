"""A listening TCP socket of an actor, and the server behind it."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import cast

import anycorn
import trio
from anycorn.typing import Framework
from starlette.types import ASGIApp

from runtime.errors import StartRefused

_BACKLOG = 256


def listen(section: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises StartRefused (exit code 69) naming the settings `<section>.host` and `.port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartRefused(
            f"the {section} cannot listen on {host} port {port}: {error.strerror}; stop the program that has it, "
            f"or set {section}.port to another (0 takes a free one)",
            exit_code=os.EX_UNAVAILABLE,
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Its address as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(app: ASGIApp, listener: socket.socket, stop: trio.Event, *, patience: float, header_bytes: int) -> None:
    """Serve until `stop`, then close the socket.

    A connection that has not sent a whole request head within `patience` seconds is closed, and so is one that stays
    silent for three times as long in the middle of a request.
    """
    config = anycorn.Config()
    # The server closes the descriptor that it is given: this one is its own.
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 2.0
    config.keep_alive_timeout = patience
    config.read_timeout = max(1, round(patience * 3))
    config.h11_max_incomplete_size = header_bytes
    config.include_server_header = False
    try:
        await anycorn.serve(cast("Framework", app), config, shutdown_trigger=stop.wait)
    finally:
        # Also if the server was cancelled before it closed its own: nobody must be let in whom nobody answers.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
