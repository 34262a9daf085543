"""A small HTTP server of the tests' own: what customers want to reach through a node."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial

import trio

PAGE = b"the origin's own page"


class Origin:
    """Serves PAGE at /, and under /stream sends a byte every 5 ms for ever."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"
        self._open = 0
        self._changed = trio.Event()

    async def until_open(self, count: int) -> None:
        """Wait until exactly so many connections are open."""
        while self._open != count:
            await self._changed.wait()

    def _count(self, change: int) -> None:
        self._open += change
        self._changed.set()
        self._changed = trio.Event()

    async def serve_one(self, stream: trio.SocketStream) -> None:
        """One connection."""
        self._count(1)
        try:
            await self._serve(stream)
        finally:
            self._count(-1)

    async def _serve(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            head = b""
            while b"\r\n\r\n" not in head:
                part = await stream.receive_some()
                if not part:
                    return
                head += part
            if head.startswith(b"GET /stream"):
                await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                await _drip(stream)
            else:
                await stream.send_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(PAGE), PAGE)
                )


async def _drip(stream: trio.SocketStream) -> None:
    ticks = trio.current_time()
    while True:
        await stream.send_all(b".")
        ticks += 0.005
        await trio.sleep_until(ticks)


@contextlib.asynccontextmanager
async def origin_server() -> AsyncIterator[Origin]:
    """An origin for as long as the block lasts."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    origin = Origin(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, origin.serve_one, listeners))
        yield origin
        nursery.cancel_scope.cancel()
