"""Each customer's updates in their order, those of different customers side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from actors.payments.shop_updates import Receipt
from actors.storefront.updates import Asked
from db.work.front_ends import WaitingScreen

MOST_WAITING: Final = 5
"""Updates of one customer that wait. Beyond that the last one counts: the others are answered, and not carried out."""
MOST_CUSTOMERS: Final = 5000
"""Customers who wait or are served; a flood of more is handed back to where it came from."""


@attrs.define(eq=False)
class Job:
    """An update that is to be served, or a screen whose waiting is over."""

    asked: Asked
    receipt: Receipt
    arrived_at: float
    waiting: WaitingScreen | None = None
    toast: str = ""
    answered: trio.Event = attrs.field(factory=trio.Event)
    """Set when the press need not be waited for any more, and may be answered."""

    def end(self, *, is_done: bool) -> None:
        """Nothing more is done with it."""
        self.answered.set()
        self.receipt.end(is_done=is_done)


@attrs.define(eq=False)
class CustomerQueues:
    """The jobs of all customers. `start` runs a task; `serve` does one job, and `slots` bound how many at once."""

    start: Callable[[Callable[[int], Awaitable[None]], int], object]
    serve: Callable[[Job], Awaitable[None]]
    slots: trio.CapacityLimiter
    _queues: dict[int, deque[Job]] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, job: Job) -> bool:
        """Take a job. False: there are too many customers, and it was handed back."""
        queue = self._queues.get(job.asked.telegram_id)
        if queue is None:
            if len(self._queues) >= MOST_CUSTOMERS:
                job.end(is_done=False)
                return False
            queue = self._queues[job.asked.telegram_id] = deque()
            queue.append(job)
            self.start(self._serve_all, job.asked.telegram_id)
            return True
        queue.append(job)
        if len(queue) > MOST_WAITING:
            while len(queue) > 1:
                queue.popleft().end(is_done=True)
        return True

    def has_more(self, telegram_id: int) -> bool:
        """Whether this customer has asked for something else meanwhile."""
        return bool(self._queues.get(telegram_id))

    async def _serve_all(self, telegram_id: int) -> None:
        queue = self._queues[telegram_id]
        job: Job | None = None
        try:
            while queue:
                async with self.slots:
                    job = queue.popleft() if queue else None
                    if job is not None:
                        await self.serve(job)
                        job.end(is_done=True)
        finally:
            del self._queues[telegram_id]
            for left in ([] if job is None else [job]) + list(queue):
                left.end(is_done=False)  # one that has ended stays so
