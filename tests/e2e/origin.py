"""A web page on loopback for customers to fetch through their tunnels: one page, and one stream that never ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

PAGE = b"hello from the origin\n"


@attrs.frozen
class Origin:
    """A running origin server."""

    port: int

    @property
    def page(self) -> str:
        """A page that answers with `PAGE` and closes."""
        return f"http://127.0.0.1:{self.port}/page"


@asynccontextmanager
async def origin() -> AsyncIterator[Origin]:
    """Serve on a free loopback port. `/page` answers at once; `/stream` echoes every byte that it receives until it is cut."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, _serve, listeners)
        yield Origin(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def _serve(stream: trio.SocketStream) -> None:
    try:
        head = bytearray()
        while b"\r\n\r\n" not in head:
            part = await stream.receive_some()
            if not part:
                return
            head += part
        if bytes(head).startswith(b"GET /stream"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\n")
            async for echo in stream:
                await stream.send_all(echo)
            return
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
        )
    except trio.BrokenResourceError:
        return
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()
