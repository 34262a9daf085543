"""A page of the canary's own on loopback: what its packets fetch through a node on this machine."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

_HEAD_LIMIT = 8192
_PATIENCE = 10.0


@attrs.frozen
class Origin:
    """Where the page is, and what it says: a text that nobody can know who did not fetch it."""

    url: str
    body: bytes


@asynccontextmanager
async def own_origin() -> AsyncIterator[Origin]:
    """Serve the page for as long as the block lasts."""
    body = secrets.token_hex(16).encode()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError), trio.move_on_after(_PATIENCE):
                head = b""
                while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
                    part = await stream.receive_some()
                    if not part:
                        return
                    head += part
                await stream.send_all(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield Origin(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/", body)
        nursery.cancel_scope.cancel()
