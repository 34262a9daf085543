"""Any history of a mailbox keeps the promises of order and loss: against a model that is a plain list."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.ask import PendingAsk
from runtime.core.mailbox import Mailbox, Overflow, QueueEntry
from runtime.message import Control, Delivery, Message


@attrs.frozen
class Plain(Message):
    number: int


@attrs.frozen
class Droppable(Message):
    droppable = True
    number: int


@attrs.frozen
class Urgent(Control):
    number: int


CAPACITY = 3
STEPS = ("plain", "droppable", "urgent", "ask", "send", "take", "postpone", "unpostpone", "crash", "cancel")
# Often enough that several are postponed, and that several senders wait when something crashes.
STEP = st.sampled_from((*STEPS, "plain", "send", "send", "postpone", "postpone"))


class History:
    """Does the steps to a mailbox and keeps the book that it is compared with."""

    def __init__(self, overflow: Overflow, nursery: trio.Nursery) -> None:
        self.mailbox = Mailbox(CAPACITY, overflow, time.monotonic)
        self.nursery = nursery
        self.number = 0
        self.waiting: list[int] = []
        """User messages that were accepted or wait for room, in order."""
        self.urgent: list[int] = []
        self.postponed: list[int] = []
        self.asks: set[int] = set()
        self.blocked: dict[int, trio.CancelScope] = {}
        self.numbers: dict[int, int] = {}
        """id of an ask -> its number."""

    def _next(self) -> int:
        self.number += 1
        return self.number

    async def plain(self) -> None:
        number = self._next()
        if self.mailbox.put(Plain(number)) is Delivery.ACCEPTED:
            self.waiting.append(number)

    async def droppable(self) -> None:
        number = self._next()
        if self.mailbox.put(Droppable(number)) is Delivery.ACCEPTED:
            self.waiting.append(number)

    async def urgent_one(self) -> None:
        number = self._next()
        assert self.mailbox.put(Urgent(number)) is Delivery.ACCEPTED
        self.urgent.append(number)

    async def ask(self) -> None:
        number = self._next()
        ask = PendingAsk(None, Plain(number), 0.0, 1.0)  # type: ignore[arg-type]  # the mailbox never looks at the callee
        self.numbers[id(ask)] = number
        if self.mailbox.put_ask(ask):
            self.asks.add(number)
            self.waiting.append(number)

    async def send(self) -> None:
        number = self._next()
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await self.mailbox.wait_for_room(Plain(number))
            self.blocked.pop(number, None)

        self.blocked[number] = scope
        self.waiting.append(number)
        self.nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()

    async def cancel(self) -> None:
        for number, scope in list(self.blocked.items())[:1]:
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            self.waiting.remove(number)

    async def take(self) -> QueueEntry | None:
        item = self._take()
        if item is None:
            assert self.waiting == []
            assert self.urgent == []
        elif isinstance(item, Urgent):
            assert self.urgent.pop(0) == item.number
        else:
            assert self.urgent == []
            assert self.waiting.pop(0) == self._number(item)
        await trio.testing.wait_all_tasks_blocked()  # a sender that was let in notices
        return item

    def _take(self) -> QueueEntry | None:
        if self.mailbox.urgent:
            return self.mailbox.take_urgent()
        try:
            return self.mailbox.receive_user()
        except trio.WouldBlock:
            return None

    def _number(self, item: QueueEntry) -> int:
        if isinstance(item, PendingAsk):
            return self.numbers[id(item)]
        assert isinstance(item, (Plain, Droppable, Urgent))
        return item.number

    async def postpone(self) -> None:
        if len(self.postponed) < CAPACITY:
            item = await self.take()
            if item is not None and not isinstance(item, Urgent):
                self.mailbox.postpone(item)
                self.postponed.append(self._number(item))

    async def unpostpone(self) -> None:
        self.mailbox.unpostpone()
        self.waiting[:0] = self.postponed
        self.postponed.clear()

    async def crash(self) -> None:
        self.mailbox.after_exit(lambda _: True)
        self.waiting = [number for number in (*self.postponed, *self.waiting) if number not in self.asks]
        self.postponed.clear()
        await trio.testing.wait_all_tasks_blocked()

    def do(self, step: str) -> Callable[[], Awaitable[object]]:
        found: Callable[[], Awaitable[object]] = getattr(self, {"urgent": "urgent_one"}.get(step, step))
        return found


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEP, min_size=10, max_size=40))
def test_whatever_happens_the_order_is_kept_and_nothing_is_lost(steps: list[str]) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            history = History(Overflow.REFUSE, nursery)
            for step in steps:
                await history.do(step)()
                statistics = history.mailbox.statistics()
                assert statistics.current_buffer_used + statistics.tasks_waiting_send == len(history.waiting)
                assert statistics.oldest_age >= 0
            while history.waiting or history.urgent:
                await history.take()
            assert await history.take() is None
            nursery.cancel_scope.cancel()

    trio.run(run)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.sampled_from(["plain", "droppable", "ask", "take"]), max_size=30))
def test_what_makes_room_is_always_the_oldest_that_may_be_lost(steps: list[str]) -> None:
    mailbox = Mailbox(CAPACITY, Overflow.DROP_OLDEST, time.monotonic)
    model: list[tuple[int, bool]] = []

    for number, step in enumerate(steps):
        if step == "take":
            if model:
                item = mailbox.receive_user()
                message = item.message if isinstance(item, PendingAsk) else item
                assert isinstance(message, (Plain, Droppable))
                assert message.number == model.pop(0)[0]
            continue
        lossy = step == "droppable"
        if len(model) == CAPACITY:
            oldest = next((entry for entry in model if entry[1]), None)
            if oldest is not None:
                model.remove(oldest)
        fits = len(model) < CAPACITY
        if step == "ask":
            ask = PendingAsk(None, Plain(number), 0.0, 1.0)  # type: ignore[arg-type]  # as above
            assert mailbox.put_ask(ask) is fits
        else:
            message = Droppable(number) if lossy else Plain(number)
            assert mailbox.put(message) is (Delivery.ACCEPTED if fits else Delivery.FULL)
        if fits:
            model.append((number, lossy))
