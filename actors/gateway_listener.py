"""A listening TCP socket of an actor, and an HTTP server behind it that one connection cannot bring down.

anycorn's own loop lets what one connection raises end all of them (a WebSocket upgrade with a protocol that is no ASCII is
enough), and so does a lack of file descriptors. Here every connection is a task of its own, and its errors are its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import traceback
from collections.abc import Callable
from typing import cast

import anycorn
import attrs
import trio
from anycorn.app_wrappers import ASGIWrapper
from anycorn.tcp_server import TCPServer
from anycorn.typing import ASGIFramework
from anycorn.worker_context import WorkerContext
from anyio.abc import SocketStream
from starlette.types import ASGIApp

from runtime.errors import StartRefused

_BACKLOG = 256
_GRACE = 2.0
_PAUSE = 0.1
_TRY_LATER = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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


@attrs.define(eq=False)
class HttpServer:
    """Serves HTTP/1.1 for an ASGI app. `crashed(text)` is told of what a connection raised; the others go on."""

    app: ASGIApp
    crashed: Callable[[str], None]
    patience: float
    """A connection that has not sent a whole request head after so many seconds is closed, and so is one that sends
    nothing for three times as long in the middle of a request."""
    header_bytes: int
    """An unfinished head that is longer ends its connection."""
    connections: int
    """Connections at a time; one more is closed at once."""
    open: int = attrs.field(init=False, default=0)
    """Connections now."""

    async def run(self, listener: socket.socket, stop: trio.Event) -> None:
        """Serve until `stop`, give requests in progress two seconds, and close the socket."""
        config = self._config()
        context = WorkerContext(None)
        try:
            async with trio.open_nursery() as requests:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listener, config, context, requests)
                    await stop.wait()
                    await context.terminated.set()
                    accepting.cancel_scope.cancel()
                requests.cancel_scope.deadline = trio.current_time() + _GRACE
        finally:
            # Also if the server was cancelled: nobody must be let in whom nobody answers.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    async def _accept(
        self, listener: socket.socket, config: anycorn.Config, context: WorkerContext, requests: trio.Nursery
    ) -> None:
        waiting = trio.socket.from_stdlib_socket(listener)
        while True:
            try:
                connection, _ = await waiting.accept()
            except OSError as error:
                if error.errno in _TRY_LATER:
                    self.crashed(f"no connection can be accepted: {error.strerror}")
                    await trio.sleep(_PAUSE)
                continue  # the others: a client that has gone again
            if self.open >= self.connections:
                connection.close()
            else:
                self.open += 1
                requests.start_soon(self._serve, connection, config, context)

    async def _serve(self, connection: trio.socket.SocketType, config: anycorn.Config, context: WorkerContext) -> None:
        try:
            stream = await _stream_of(connection)
            if stream is not None:
                app = ASGIWrapper(cast("ASGIFramework", self.app))
                await TCPServer(app, config, context, {}, stream).run()
        except Exception as error:  # noqa: BLE001 - a connection's errors are its own
            self.crashed("".join(traceback.format_exception_only(error)).strip())
        finally:
            self.open -= 1

    def _config(self) -> anycorn.Config:
        config = anycorn.Config()
        config.accesslog = None
        config.errorlog = None
        config.keep_alive_timeout = self.patience
        config.read_timeout = max(1, round(self.patience * 3))
        config.h11_max_incomplete_size = self.header_bytes
        config.include_server_header = False
        return config


async def _stream_of(connection: trio.socket.SocketType) -> SocketStream | None:
    """The connection as the server wants it, or None if the client has gone again."""
    with connection:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            descriptor = os.dup(connection.fileno())
        except OSError:
            return None
    try:
        return await SocketStream.from_socket(descriptor)
    except (OSError, ValueError):
        os.close(descriptor)
        return None
