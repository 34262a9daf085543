"""A listening TCP socket of an actor, and an HTTP server behind it that one connection cannot bring down.

anycorn's own loop lets what one connection raises end all of them (a WebSocket upgrade with a protocol that is no ASCII is
enough), and so does a lack of file descriptors. Here every connection is a task of its own, and its errors are its own.
anycorn also shields what it sends, so that a client that does not read holds its request, its connection and the stop of the
server for as long as it likes. Here every send has a deadline inside that shield.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import socket
import struct
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import cast

import anycorn
import anyio
import attrs
import trio
from anycorn.app_wrappers import ASGIWrapper
from anycorn.tcp_server import TCPServer
from anycorn.typing import ASGIFramework
from anycorn.worker_context import WorkerContext
from anyio.abc import SocketAttribute, SocketStream
from starlette.types import ASGIApp

from actors.gateway_limits import Address, read_address, site_of
from runtime.errors import StartRefused

_BACKLOG = 256
_GRACE = 2.0
_PAUSE = 0.1
_PATIENCE_AMID = 3
_HANG_UP = struct.pack("ii", 1, 0)
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
    nothing for three times as long in the middle of a request, or has not taken a part of its answer after that time."""
    header_bytes: int
    """An unfinished head that is longer ends its connection."""
    connections: int
    """Connections at a time; one more is closed at once."""
    of_one_source: int
    """Connections at a time of one source (an IPv4 address, or a /64 of IPv6); one more is closed at once."""
    trusted: Sequence[IPv4Network | IPv6Network] = ()
    """Networks of our own proxies, which speak for many sources and may have as many as they like."""
    open: int = attrs.field(init=False, default=0)
    """Connections now."""
    _by_source: Counter[Address | IPv6Network | None] = attrs.field(init=False, factory=Counter)
    _sends: set[trio.CancelScope] = attrs.field(init=False, factory=set)
    _last_send: float = attrs.field(init=False, default=math.inf)

    async def run(self, listener: socket.socket, stop: trio.Event) -> None:
        """Serve until `stop`, give requests in progress two seconds, and close the socket."""
        config = self._config()
        context = WorkerContext(None)
        grace = 0.0
        try:
            async with trio.open_nursery() as requests:
                try:
                    async with trio.open_nursery() as accepting:
                        accepting.start_soon(self._accept, listener, config, context, requests)
                        await stop.wait()
                        grace = _GRACE
                        await context.terminated.set()
                        accepting.cancel_scope.cancel()
                finally:
                    self._end_sends(trio.current_time() + grace)
                    requests.cancel_scope.deadline = trio.current_time() + grace
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
                connection, peer = await waiting.accept()
            except OSError as error:
                if error.errno in _TRY_LATER:
                    self.crashed(f"no connection can be accepted: {error.strerror}")
                    await trio.sleep(_PAUSE)
                continue  # the others: a client that has gone again
            source = self._source_of(peer[0])
            if self.open >= self.connections or self._by_source[source] >= self.of_one_source:
                connection.close()
            else:
                requests.start_soon(self._serve, connection, source, config, context)
                self.open += 1
                self._by_source[source] += source is not None

    def _source_of(self, host: str) -> Address | IPv6Network | None:
        """Whose connections a connection counts among; nobody's if it is a proxy of ours."""
        address = read_address(host)
        if address is None or any(address in network for network in self.trusted):
            return None
        return site_of(address)

    async def _serve(
        self,
        connection: trio.socket.SocketType,
        source: Address | IPv6Network | None,
        config: anycorn.Config,
        context: WorkerContext,
    ) -> None:
        try:
            stream = await _stream_of(connection)
            if stream is not None:
                app = ASGIWrapper(cast("ASGIFramework", self.app))
                with trio.CancelScope() as whole:
                    bounded = _Bounded(stream, functools.partial(self._send, stream, whole))
                    await _Connection(app, config, context, {}, bounded).run()
        except Exception as error:  # noqa: BLE001 - a connection's errors are its own
            self.crashed("".join(traceback.format_exception_only(error)).strip())
        finally:
            self.open -= 1
            self._by_source[source] -= source is not None
            if not self._by_source[source]:
                del self._by_source[source]

    async def _send(self, stream: SocketStream, whole: trio.CancelScope, data: bytes) -> None:
        now = trio.current_time()
        scope = trio.CancelScope(deadline=min(now + self.patience * _PATIENCE_AMID, self._last_send))
        self._sends.add(scope)
        try:
            with scope:
                await stream.send(data)
        finally:
            self._sends.discard(scope)
        if scope.cancelled_caught:
            whole.cancel()  # what else it has asked for would be worked on for nobody
            await _hang_up(stream)
            raise anyio.BrokenResourceError

    def _end_sends(self, moment: float) -> None:
        """Let no send go on for longer, nor any that begins later: a shield keeps the nursery's deadline from them."""
        self._last_send = moment
        for scope in self._sends:
            scope.deadline = min(scope.deadline, moment)

    def _config(self) -> anycorn.Config:
        config = anycorn.Config()
        config.accesslog = None
        config.errorlog = None
        config.keep_alive_timeout = self.patience
        config.read_timeout = max(1, round(self.patience * _PATIENCE_AMID))
        config.h11_max_incomplete_size = self.header_bytes
        config.include_server_header = False
        return config


class _Connection(TCPServer):
    """anycorn's, without its wait for another request after the client has hung up."""

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


@attrs.frozen(eq=False)
class _Bounded(SocketStream):
    """A connection whose sends pass through `deliver`."""

    inner: SocketStream
    deliver: Callable[[bytes], Awaitable[None]]

    @property
    def _raw_socket(self) -> socket.socket:
        return _raw(self.inner)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self.deliver(item)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _hang_up(stream: SocketStream) -> None:
    """Close a connection and forget what it has not taken: otherwise the kernel goes on offering it."""
    with contextlib.suppress(OSError):
        _raw(stream).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HANG_UP)
    await stream.aclose()


def _raw(stream: SocketStream) -> socket.socket:
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's attributes, not Django's
    assert isinstance(raw, socket.socket)
    return raw


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
