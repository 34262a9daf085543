"""Telegram's updates by long polling, or the registration of the webhook that replaces it.

Updates are stored and settled many at a time; each is confirmed to Telegram only after it is stored.
"""

from __future__ import annotations

import functools
import json
import random
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import attrs
import trio

from actors.leadership.leader_lease import LeaderElection
from actors.payments.events import DeliveryUnread, ProviderAway
from actors.payments.intake import Intake, Unsettled
from actors.payments.provider import NotUnderstood, ProviderRefused, ProviderUnavailable
from actors.payments.settings import PaymentSettings
from actors.payments.shop_updates import Receipt, hand_over, until_served
from actors.payments.telegram import NAME, UPDATES, Telegram
from actors.payments.telegram_api import TelegramApi
from actors.payments.wire import Fields, int_field
from actors.pool.client import pool_of
from db.billing.cases import open_case
from runtime import Actor, Ignore, Killed, StopReason

_WITHIN = 2.5


@attrs.define(eq=False)
class UpdateQueue:
    """What is being done with updates, by tasks of `nursery`.

    A checkout is begun at once, because its customer waits; what people ask the shop is handed to the storefront, if there is
    one; of anything else `slots` are worked on at a time, those of one sender in their order. An update that cannot be stored
    for a reason of its own is passed with a case.
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

    def accept(self, updates: Iterable[object]) -> None:
        """Begin with those of the updates that came just now that are not begun yet. Raises NotUnderstood for what has no
        number: it cannot be confirmed."""
        arrived_at = trio.current_time()
        self._next = 0  # numbers may start anew
        for update in updates:
            if not isinstance(update, dict):
                raise NotUnderstood(f"an update is {type(update).__name__}")
            number = int_field(update, "update_id")
            self._next = max(self._next, number + 1)
            if number in self._working or number in self._done:
                continue
            self._working.add(number)
            self._lost.pop(number, None)
            receipt = hand_over(self.intake.context, update)
            if receipt is not None:
                self.nursery.start_soon(self._until_served, number, update, receipt)
            elif "pre_checkout_query" in update:
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

    def first_error(self) -> str:
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

    async def _until_served(self, number: int, update: Fields, receipt: Receipt) -> None:
        await until_served(self.intake.context, update, receipt)
        self._working.discard(number)
        self._done.add(number)
        self._changed.set()
        self._changed = trio.Event()

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
    """Return the sender of an update; updates without one are in an order of their own."""
    for thing in update.values():
        sender = thing.get("from") if isinstance(thing, dict) else None
        if isinstance(sender, dict):
            return str(sender.get("id"))
    return None


def _as_number(value: object) -> float:
    """Decimals occur only where no money is (a location)."""
    assert isinstance(value, Decimal)
    return float(value)


POLLING_EPOCH: Final = "telegram_updates"
"""The row of `epochs` of the process that polls."""
_PATIENCE: Final = 1.0
"""Seconds after which the bot is asked for news although some of the last is still being worked on."""


@attrs.define(eq=False)
class TelegramUpdates(Actor):
    """Takes the bot's updates by `getUpdates`; in webhook mode it registers the webhook once and then rests.

    Role: the other way in for Telegram's payments, and for what people ask the storefront. Owns: while it polls, the epoch row
    "telegram_updates": of several processes on one database one polls, because Telegram ends the earlier one of two requests.
    Receives: nothing. Sends: requests for leases to `pool`, updates about no money to `storefront`.
    On crash: updates that were not confirmed come again, and are found stored. Declines to run without a bot's token.
    Invariants: an update is confirmed to Telegram only after it is stored, given up with a case, or served by the storefront
    (which has ten seconds); one that is stored and cannot be settled now is left to the payment watcher; none holds up the
    others; pending updates are never dropped.
    """

    payments: PaymentSettings
    pool: str = "pool.gateway"
    wait: float = attrs.field(default=25.0, validator=attrs.validators.ge(0))
    """Seconds that one `getUpdates` waits for news."""
    first_pause: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    last_pause: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds between two attempts while Telegram or the database is away; they double from the first to the last."""
    concurrency: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    """Updates that are worked on at the same time; a checkout waits for none of them."""
    turn_seconds: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Seconds, on the database's clock, after which another process polls if this one is not heard of."""
    _election: LeaderElection | None = attrs.field(init=False, default=None)

    async def on_start(self) -> None:
        settings = self.payments.telegram
        if not settings.token:
            raise Ignore("payments.telegram.token is not set")
        if settings.mode == "webhook" and not settings.webhook_url:
            raise Ignore("payments.telegram.mode is webhook, and webhook_url is not set: register it yourself")
        self.context.describe(mode=settings.mode)
        self._election = LeaderElection(
            self.context, pool_of(self.context, self.pool), POLLING_EPOCH, self.turn_seconds
        )
        self.context.start_task(self._run, name="updates", inherit_deadline=False)

    async def on_stop(self, reason: StopReason) -> None:
        if self._election is not None:
            await self._election.stop()

    async def _run(self) -> None:
        settings = self.payments.telegram
        telegram = Telegram(settings, TelegramApi.of(settings.url, settings.token, read_seconds=self.wait + 10))
        try:
            if settings.mode == "webhook":
                await self._demand_until_done(
                    telegram, "setWebhook", _webhook(settings.webhook_url, settings.webhook_secret.reveal())
                )
                await trio.sleep_forever()
            assert self._election is not None
            self._election.start()
            while True:
                async with self._election.leading():
                    # Not until Telegram has let go of the webhook does it answer getUpdates. What is pending stays.
                    await self._demand_until_done(telegram, "deleteWebhook", {"drop_pending_updates": False})
                    await self._poll(telegram)
        finally:
            with trio.CancelScope(shield=True):
                await telegram.aclose()

    async def _demand_until_done(self, telegram: Telegram, method: str, body: object) -> None:
        pause = self.first_pause
        while True:
            try:
                await telegram.api.demand(method, body)
            except (ProviderUnavailable, ProviderRefused) as error:
                pause = await self._back_off(pause, str(error))
            else:
                self.context.ready(True)
                return

    async def _poll(self, telegram: Telegram) -> None:
        intake = Intake.of(self.context, self.pool)
        pause = self.first_pause
        async with trio.open_nursery() as nursery:
            work = UpdateQueue(telegram, intake, nursery, trio.CapacityLimiter(self.concurrency))
            while True:
                request = {"offset": work.offset, "timeout": int(self.wait), "allowed_updates": list(UPDATES)}
                try:
                    updates = await telegram.api.updates(request, within=self.wait + 10)
                    work.accept(updates)
                    await work.until_done(within=_PATIENCE)
                    self.context.failpoint("taken")
                except (ProviderUnavailable, ProviderRefused, NotUnderstood) as error:
                    pause = await self._back_off(pause, str(error))
                    continue
                if trouble := work.first_error():
                    # What was stored stays so: the next request confirms it, and brings the rest again.
                    pause = await self._back_off(pause, trouble)
                else:
                    pause = self.first_pause
                    self.context.ready(True)

    async def _back_off(self, pause: float, why: str) -> float:
        self.context.ready(False, why)
        self.context.emit(ProviderAway(self.context.name, NAME, why))
        await trio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing
        return min(pause * 2, self.last_pause)


def _webhook(url: str, secret: str) -> dict[str, object]:
    return {"url": url, "secret_token": secret, "allowed_updates": list(UPDATES), "drop_pending_updates": False}
