"""A node that takes long to answer, and whose list of keys can fail: a TCP proxy in front of a real one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

_REFUSED = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_LIST = b"GET /v1/users?"


class SlowNode:
    """Passes requests on at once and answers on after `delay` seconds; while `list_fails`, lists are answered 502."""

    def __init__(self, target: int, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.delay = 0.0
        self.list_fails = False
        self.refused = 0
        """Lists that were answered 502."""
        self._target = target

    async def serve_one(self, client: trio.SocketStream) -> None:
        """One connection."""
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:
            return
        answers, due = trio.open_memory_channel[tuple[float, bytes]](math.inf)

        async def ask() -> None:
            while part := await client.receive_some():
                if self.list_fails and part.startswith(_LIST):
                    self.refused += 1
                    await client.send_all(_REFUSED)
                    break
                await server.send_all(part)
            nursery.cancel_scope.cancel()

        async def hear() -> None:
            while part := await server.receive_some():
                answers.send_nowait((trio.current_time() + self.delay, part))
            answers.close()

        async def answer() -> None:
            async for at, part in due:
                await trio.sleep_until(at)
                await client.send_all(part)
            nursery.cancel_scope.cancel()

        async with server, trio.open_nursery() as nursery:

            async def until_cut(work: Callable[[], Awaitable[None]]) -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await work()

            for work in (ask, hear, answer):
                nursery.start_soon(until_cut, work)


@contextlib.asynccontextmanager
async def slow_node(target_url: str) -> AsyncIterator[SlowNode]:
    """Such a node in front of this one for the length of the block."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    node = SlowNode(int(target_url.rpartition(":")[2]), listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, node.serve_one, listeners)
        yield node
        nursery.cancel_scope.cancel()
