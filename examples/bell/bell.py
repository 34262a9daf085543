"""A bell that rings every few seconds and knows how often it has rung."""

import attrs
import trio

from runtime import Actor, Message, Request, get_logger, handler


@attrs.frozen
class Ring(Message): ...


@attrs.frozen
class CountRings(Request[int]): ...


@attrs.define(eq=False)
class Bell(Actor):
    every: float = 1.0  # a start argument: each restart is given the same
    rung: int = attrs.field(init=False, default=0)  # private state: each restart begins anew

    async def on_start(self) -> None:
        self.context.start_task(self.keep_time)

    async def keep_time(self) -> None:  # what waits runs beside the messages, and comes back as one
        while True:
            await trio.sleep(self.every)
            self.context.ref.tell(Ring())

    @handler
    async def ring(self, _: Ring) -> None:
        self.rung += 1
        get_logger("bell").info("dong", rung=self.rung)

    @handler
    async def count(self, _: CountRings) -> int:
        return self.rung
