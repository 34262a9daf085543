"""An HTTP server that one connection cannot bring down: each is a task of its own, and its errors are its own."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import traceback
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Final

import attrs
import trio
from starlette.types import ASGIApp

from runtime.http.connection import HttpConnection
from runtime.http.limits import LIMITED, ConnectionLimits
from runtime.http.sources import IpAddress, Networks, read_address, site_of
from runtime.http.wire import ClientLost, ClientStream, Wire
from runtime.log.limit import LogLimit

_GRACE: Final = 2.0
_PAUSE: Final = 0.1
_HANDSHAKE_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 1.0
_GOODBYE_BYTES: Final = 65_536
_ONLY_TLS_BODY: Final = b'{"error": {"code": "tls_needed", "message": "this port speaks TLS: use https"}}'
_ONLY_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_ONLY_TLS_BODY), _ONLY_TLS_BODY)
)
_HANG_UP: Final = struct.pack("ii", 1, 0)
_TRY_LATER: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@attrs.define(eq=False)
class HttpServer:
    """Serves HTTP/1.1 for an ASGI app, over TLS if it is given a context.

    `name` is the listener's in metrics. `crashed(text)` is told of what a request or the listener raised; the others go on.
    `handshake_failed(error)` is told of a client that does not come as far as a request. Raises ValueError for
    `trusted_proxies` that are no networks.
    """

    name: str
    app: ASGIApp
    limits: ConnectionLimits
    crashed: Callable[[str], None]
    tls: ssl.SSLContext | None = None
    handshake_failed: Callable[[Exception], None] = attrs.field(default=lambda _: None)
    grace: float = _GRACE
    """Seconds for requests in progress when it stops."""
    open: int = attrs.field(init=False, default=0)
    """Connections now."""
    _trusted: Networks = attrs.field(init=False)
    _by_source: Counter[IpAddress | IPv6Network | None] = attrs.field(init=False, factory=Counter)
    _idle: set[trio.CancelScope] = attrs.field(init=False, factory=set)
    _shortage: LogLimit = attrs.field(init=False, factory=LogLimit)
    _is_stopping: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._trusted = self.limits.networks()

    async def run(self, listener: socket.socket, stop: trio.Event) -> None:
        """Serve until `stop`, give requests in progress `grace` seconds, and close the socket."""
        try:
            async with trio.open_nursery() as requests:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listener, requests)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                self._is_stopping = True
                for scope in self._idle:
                    scope.cancel()
                requests.cancel_scope.deadline = trio.current_time() + self.grace
        finally:
            # Also if the server was cancelled: the kernel must not accept connections that are not served.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    async def _accept(self, listener: socket.socket, requests: trio.Nursery) -> None:
        waiting = trio.socket.from_stdlib_socket(listener)
        while True:
            try:
                connection, peer = await waiting.accept()
            except OSError as error:
                if error.errno in _TRY_LATER:
                    if (left_out := self._shortage.admit(error.errno)) is not None:
                        self.crashed(f"no connection can be accepted: {error.strerror} ({left_out} times before)")
                    await trio.sleep(_PAUSE)
                continue  # the others: a client that has gone again
            source = self._source_of(peer[0])
            if self.open >= self.limits.max_connections:
                self._close(connection, "connections")
            elif source is not None and self._by_source[source] >= self.limits.max_connections_per_source:
                self._close(connection, "connections_per_source")
            else:
                requests.start_soon(self._serve, connection, peer, source)
                self.open += 1
                self._by_source[source] += 1

    def _close(self, connection: trio.socket.SocketType, limit: str) -> None:
        LIMITED.labels(self.name, limit).inc()
        connection.close()

    def _source_of(self, host: str) -> IpAddress | IPv6Network | None:
        """Whose connections a connection counts among; None if it is a proxy of ours, which speaks for many."""
        address = read_address(host)
        if address is None or any(address in network for network in self._trusted):
            return None
        return site_of(address)

    async def _serve(
        self, connection: trio.socket.SocketType, peer: tuple[str, int], source: IpAddress | IPv6Network | None
    ) -> None:
        try:
            with connection:
                await self._serve_one(connection, peer)
        except (ClientLost, OSError):
            pass  # the client has gone, or was cut off
        except Exception as error:  # noqa: BLE001 - a connection's errors are its own
            self.crashed("".join(traceback.format_exception_only(error)).strip())
        finally:
            self.open -= 1
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    async def _serve_one(self, connection: trio.socket.SocketType, peer: tuple[str, int]) -> None:
        server = connection.getsockname()
        stream = await self._open(trio.SocketStream(connection))
        if stream is None:
            return
        served = HttpConnection(
            wire=Wire(stream, self.limits),
            app=self.app,
            client=(peer[0], peer[1]),
            server=(server[0], server[1]),
            crashed=self.crashed,
            is_stopping=lambda: self._is_stopping,
            idle=self._idle,
        )
        try:
            await served.run()
        except ClientLost:
            # What it has not taken must not be offered to it any longer.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HANG_UP)
            raise

    async def _open(self, plain: trio.SocketStream) -> ClientStream | None:
        if self.tls is None:
            return plain
        stream = trio.SSLStream(plain, self.tls, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(_HANDSHAKE_SECONDS):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            self.handshake_failed(error)
            await _say_why(plain, stream, error)
            return None
        return stream


async def _say_why(plain: trio.SocketStream, stream: trio.SSLStream[trio.SocketStream], error: Exception) -> None:
    """Tell the client why its handshake failed: TLS has an alert for it, which trio leaves unsent.

    A client without the certificate that is asked for would otherwise see a connection that closes, like any other fault.
    """
    is_plain_http = isinstance(error.__cause__, ssl.SSLError) and error.__cause__.reason == "HTTP_REQUEST"
    answer = _ONLY_TLS if is_plain_http else stream._outgoing.read()  # trio has no other way to it
    with trio.move_on_after(_GOODBYE_SECONDS), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if answer:
            await plain.send_all(answer)
            await plain.send_eof()
            # what lies unread when a socket is closed makes the kernel drop the answer
            left = _GOODBYE_BYTES
            while left > 0 and (read := await plain.receive_some(left)):
                left -= len(read)
