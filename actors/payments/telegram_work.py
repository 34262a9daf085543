"""Updates that are stored and settled many at a time, and up to which number Telegram may forget them."""

from __future__ import annotations

import functools
import json
from collections import deque
from collections.abc import Iterable
from decimal import Decimal

import attrs
import trio

from actors.payments.events import DeliveryUnread
from actors.payments.fields import Fields, whole
from actors.payments.intake import Intake, Unsettled
from actors.payments.provider import NotUnderstood
from actors.payments.telegram import NAME, Telegram
from db.cases import open_case
from runtime.errors import Killed

_WITHIN = 2.5


@attrs.define(eq=False)
class UpdatesAtWork:
    """What is being done with updates, by tasks of `nursery`.

    A checkout is begun at once, because its customer waits; of anything else `slots` are worked on at a time, those of one
    sender in their order. An update that cannot be stored for a reason of its own is passed with a case.
    """

    telegram: Telegram
    intake: Intake
    nursery: trio.Nursery
    slots: trio.CapacityLimiter
    _working: set[int] = attrs.field(init=False, factory=set)
    _done: set[int] = attrs.field(init=False, factory=set)
    _lost: dict[int, str] = attrs.field(init=False, factory=dict)
    _next: int = attrs.field(init=False, default=0)
    _queues: dict[object, deque[tuple[int, Fields, float]]] = attrs.field(init=False, factory=dict)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)

    def begin(self, updates: Iterable[object]) -> None:
        """Begin with those of the updates that came just now that are not begun yet. Raises NotUnderstood for what has no
        number: it cannot be confirmed."""
        arrived_at = trio.current_time()
        self._next = 0  # numbers may start anew
        for update in updates:
            if not isinstance(update, dict):
                raise NotUnderstood(f"an update is {type(update).__name__}")
            number = whole(update, "update_id")
            self._next = max(self._next, number + 1)
            if number in self._working or number in self._done:
                continue
            self._working.add(number)
            self._lost.pop(number, None)
            if "pre_checkout_query" in update:
                self.nursery.start_soon(self._take, number, update, arrived_at)
            else:
                self._queue(number, update, arrived_at)

    async def until_done(self, *, within: float) -> None:
        """Wait until all are done, at most so many seconds."""
        with trio.move_on_after(within):
            while self._working:
                await self._changed.wait()

    @property
    def offset(self) -> int:
        """Every update with a lower number is stored, or given up with a case; 0 if there is nothing to confirm."""
        offset = min(self._working | self._lost.keys(), default=self._next)
        self._done = {number for number in self._done if number >= offset}
        return offset

    def trouble(self) -> str:
        """Why an update could not be stored, or nothing. It is begun again when Telegram shows it again."""
        return next(iter(self._lost.values()), "")

    def _queue(self, number: int, update: Fields, arrived_at: float) -> None:
        sender = _sender(update)
        queue = self._queues.get(sender)
        if queue is None:
            queue = self._queues[sender] = deque()
            self.nursery.start_soon(self._take_all, sender, queue)
        queue.append((number, update, arrived_at))

    async def _take_all(self, sender: object, queue: deque[tuple[int, Fields, float]]) -> None:
        while queue:
            async with self.slots:
                await self._take(*queue.popleft())
        del self._queues[sender]

    async def _take(self, number: int, update: Fields, arrived_at: float) -> None:
        try:
            # ASCII alone: what is half a character in JSON is none in UTF-8.
            body = json.dumps(update, default=_as_number).encode()
            await self.intake.receive(self.telegram, self.telegram.event_id(update), body, arrived_at=arrived_at)
        except Unsettled as error:
            if not error.is_stored:
                self._lost[number] = str(error)
        except Killed:
            raise
        except Exception as error:  # noqa: BLE001 - one update's trouble is its own
            await self._give_up(number, error)
        self._working.discard(number)
        if number not in self._lost:
            self._done.add(number)
        self._changed.set()
        self._changed = trio.Event()

    async def _give_up(self, number: int, error: Exception) -> None:
        """Pass an update that no repetition stores, once a human is told: it would hold up all that come after it."""
        why = f"update {number}: {error if isinstance(error, NotUnderstood) else type(error).__name__}"
        context = self.intake.context
        case = functools.partial(open_case, details={"provider": NAME, "error": why})
        try:
            await self.intake.pool.run(
                "payments.unread", case, "provider_update", f"{NAME}:{number}", within=_WITHIN, hold=_WITHIN
            )
        except Exception as lost:  # noqa: BLE001 - then the update is not given up
            self._lost[number] = f"{why}, and no case could be opened: {type(lost).__name__}"
        else:
            context.emit(DeliveryUnread(context.name, NAME, why))


def _sender(update: Fields) -> object:
    """Whom an update comes from; those of nobody are in an order of their own."""
    for thing in update.values():
        sender = thing.get("from") if isinstance(thing, dict) else None
        if isinstance(sender, dict):
            return str(sender.get("id"))
    return None


def _as_number(value: object) -> float:
    """Decimals occur only where no money is (a location)."""
    assert isinstance(value, Decimal)
    return float(value)
