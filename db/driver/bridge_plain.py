"""The plain bridge: asyncpg reads through its trio-asyncio loop, and only public interfaces are used.

Slower than the inline bridge (each packet costs several loop turns), with the same promises: a holder's function can wait
for nothing but its own connection, and a cancellation returns at once. It takes over when the inline bridge does not
recognise what is installed, or by `ATLAS__POOL__BRIDGE=plain`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import trio

from db.driver.bridge import Bridge, DriverConnection, LoopView
from db.driver.stepping import step


class PlainFuture(asyncio.Future[Any]):
    """asyncio's future, tagged with the connection that made it."""

    view: PlainView


class PlainView(LoopView):
    """The loop as a connection of the plain bridge sees it."""

    def create_future(self) -> PlainFuture:
        future = PlainFuture(loop=self.loop)
        future.view = self
        self.last = future
        return future


class PlainConnection(DriverConnection):
    """A connection whose socket is read by the loop."""

    view: PlainView

    def __init__(self, connection: Any, view: PlainView) -> None:
        super().__init__(connection, view)
        self._cancelled: PlainFuture | None = None

    async def begin(self) -> None:
        await step(self, self.statement("BEGIN"))

    async def wait(self, pending: PlainFuture) -> None:
        done = trio.Event()
        pending.add_done_callback(lambda _: done.set())
        try:
            await done.wait()
        except trio.Cancelled:
            self._cancelled = pending
            raise

    def resume_reading(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def is_cancelling(self) -> bool:
        # Without looking inside the driver only this is known: it was cancelled, and nothing proves that it is over.
        return self._cancelled is not None

    async def run_on_loop(self, coroutine: Any) -> Any:
        result = await super().run_on_loop(coroutine)
        # asyncpg lets an operation begin only after the server has acknowledged the cancellation of the one before.
        self._cancelled = None
        return result

    def probe(self) -> bool:
        return not self.is_closed()


class PlainBridge(Bridge):
    """Opens connections that are read by the loop."""

    name = "plain"

    def view(self) -> PlainView:
        return PlainView(self.loop)

    def adopt(self, connection: Any, view: LoopView) -> PlainConnection:
        assert isinstance(view, PlainView)
        return PlainConnection(connection, view)
