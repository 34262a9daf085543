"""A TCP proxy that misbehaves as told: what a bad network does between a backend and a node."""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import AsyncIterator

import trio

_NO_ROUTE = b'{"error":{"code":"http","message":"Not Found"}}'
NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (
        len(_NO_ROUTE),
        _NO_ROUTE,
    )
)
_PAGE = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
TOO_LARGE = (
    b"HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_PAGE), _PAGE)
)


class Fault(enum.Enum):
    """What happens to one connection."""

    LOSE_REQUEST = "cut at the first byte of the request, which never arrives"
    LOSE_ANSWER = "the request arrives; cut at the first byte of the answer, which comes once it is done"
    HALF_ANSWER = "the request arrives; cut after the first ten bytes of the answer"
    NO_ANSWER = "the request arrives and is done; nothing ever comes back, and nothing is cut"


class FaultyProxy:
    """Passes connections on to a port, the first ones each with the fault planned for it; `seen` counts all of them.

    After connection number `last` it takes no more: whoever comes later is refused. `unknown` are beginnings of
    requests ("GET /v1/users?") that are answered as an older agent answers what it does not know. A body of more than `most`
    bytes is refused as a web server in front does it; `too_large` counts those.
    """

    def __init__(self, target: int, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen = 0
        self.unknown: tuple[bytes, ...] = ()
        self.last: int | None = None
        self.most: int | None = None
        self.too_large = 0
        self._saw = trio.Event()
        self._serving = trio.CancelScope()
        self._target = target
        self._plan: list[Fault] = []

    def plan(self, *faults: Fault) -> None:
        """What happens to the next connections, one each."""
        self._plan += faults

    async def until_seen(self, count: int) -> None:
        """Wait until so many connections have come."""
        while self.seen < count:
            await self._saw.wait()

    async def serve(
        self, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take connections until cancelled, or until the last one."""
        async with trio.open_nursery() as connections:
            with self._serving:
                await trio.serve_listeners(
                    self.serve_one, listeners, handler_nursery=connections, task_status=task_status
                )

    def _is_too_large(self, part: bytes) -> bool:
        found = re.search(rb"(?i)^content-length: (\d+)\r$", part, re.MULTILINE)
        return self.most is not None and found is not None and int(found[1]) > self.most

    async def serve_one(self, client: trio.SocketStream) -> None:
        """One connection."""
        self.seen += 1
        self._saw.set()
        self._saw = trio.Event()
        if self.seen == self.last:
            self._serving.cancel()
        fault = self._plan.pop(0) if self._plan else None
        if fault is Fault.LOSE_REQUEST:
            await client.receive_some()
            return
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:
            return  # nobody is there: the client sees its connection cut
        async with server, trio.open_nursery() as nursery:

            async def pass_on(source: tuple[trio.SocketStream, trio.SocketStream], fault: Fault | None) -> None:
                one, other = source
                with contextlib.suppress(trio.BrokenResourceError):
                    while part := await one.receive_some():
                        if fault is Fault.LOSE_ANSWER:
                            break
                        if fault is Fault.HALF_ANSWER:
                            await other.send_all(part[:10])
                            break
                        if source[0] is client and self._is_too_large(part):
                            self.too_large += 1
                            await client.send_all(TOO_LARGE)
                            while await client.receive_some():
                                pass
                        elif source[0] is client and part.startswith(self.unknown):
                            await client.send_all(NOT_FOUND)
                            while await client.receive_some():
                                pass
                        elif fault is None:
                            await other.send_all(part)
                nursery.cancel_scope.cancel()

            nursery.start_soon(pass_on, (client, server), None)
            nursery.start_soon(pass_on, (server, client), fault)


@contextlib.asynccontextmanager
async def faulty_proxy(target_url: str) -> AsyncIterator[FaultyProxy]:
    """A proxy in front of this address for as long as the block lasts."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = FaultyProxy(int(target_url.rpartition(":")[2]), listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, listeners)
        yield proxy
        nursery.cancel_scope.cancel()
