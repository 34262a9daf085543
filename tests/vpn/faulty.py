"""A TCP proxy that misbehaves as told: what a bad network does between a backend and a node."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncIterator, Iterable
from functools import partial

import trio


class Fault(enum.Enum):
    """What happens to one connection."""

    LOSE_REQUEST = "cut at the first byte of the request, which never arrives"
    LOSE_ANSWER = "the request arrives; cut at the first byte of the answer, which comes once it is done"
    HALF_ANSWER = "the request arrives; cut after the first ten bytes of the answer"
    NO_ANSWER = "the request arrives and is done; nothing ever comes back, and nothing is cut"


class FaultyProxy:
    """Passes connections on to a port, the first ones each with the fault planned for it; `seen` counts all of them."""

    def __init__(self, target: int, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen = 0
        self._target = target
        self._plan: list[Fault] = []

    def plan(self, *faults: Fault) -> None:
        """What happens to the next connections, one each."""
        self._plan += faults

    async def serve_one(self, client: trio.SocketStream) -> None:
        """One connection."""
        self.seen += 1
        fault = self._plan.pop(0) if self._plan else None
        if fault is Fault.LOSE_REQUEST:
            await client.receive_some()
            return
        async with await trio.open_tcp_stream("127.0.0.1", self._target) as server, trio.open_nursery() as nursery:

            async def pass_on(source: Iterable[trio.SocketStream], fault: Fault | None) -> None:
                one, other = source
                with contextlib.suppress(trio.BrokenResourceError):
                    while part := await one.receive_some():
                        if fault is Fault.LOSE_ANSWER:
                            break
                        if fault is Fault.HALF_ANSWER:
                            await other.send_all(part[:10])
                            break
                        if fault is None:
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
        await nursery.start(partial(trio.serve_listeners, proxy.serve_one, listeners))
        yield proxy
        nursery.cancel_scope.cancel()
