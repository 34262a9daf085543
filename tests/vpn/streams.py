"""Streams through a tunnel, for tests that watch them being served or cut."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from tests.vpn.origin import Origin
from vpn.xray.tunnel import Tunnel


@contextlib.asynccontextmanager
async def open_stream(tunnel: Tunnel, origin: Origin) -> AsyncIterator[trio.SocketStream]:
    """An endless answer of the origin, with its first bytes read."""
    stream = await tunnel.connect("127.0.0.1", origin.port)
    async with stream:
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: origin\r\n\r\n")
        await read_more(stream, 50)
        yield stream


async def read_more(stream: trio.SocketStream, count: int) -> None:
    """Read `count` bytes more."""
    while count > 0:
        part = await stream.receive_some(count)
        assert part, "the node closed a stream that it should serve"
        count -= len(part)


async def read_until_cut(stream: trio.SocketStream) -> None:
    """Read until the other side closes."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
