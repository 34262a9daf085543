"""Telegram's updates by long polling, or the registration of the webhook that replaces it."""

from __future__ import annotations

import random
from typing import Final

import attrs
import trio

from actors.payments.events import ProviderAway
from actors.payments.intake import Intake
from actors.payments.provider import NotUnderstood, ProviderRefused, ProviderUnavailable
from actors.payments.settings import PaymentSettings
from actors.payments.telegram import NAME, UPDATES, Telegram
from actors.payments.telegram_api import TelegramApi
from actors.payments.telegram_work import UpdatesAtWork
from actors.pool_client import pool_of
from actors.turn import Turn
from runtime.actor import Actor
from runtime.child import StopReason
from runtime.errors import Ignore

EPOCH: Final = "telegram_updates"
"""The row of `epochs` of the process that polls."""
_PATIENCE: Final = 1.0
"""Seconds after which the bot is asked for news although some of the last is still being worked on."""


@attrs.define(eq=False)
class TelegramUpdates(Actor):
    """Takes the bot's updates by `getUpdates`; in webhook mode it registers the webhook once and then rests.

    Role: the other way in for Telegram's payments. Owns: while it polls, the epoch row "telegram_updates": of several
    processes on one database one polls, because Telegram ends the earlier one of two requests. Receives: nothing. Sends:
    requests for leases to `pool`.
    On crash: updates that were not confirmed come again, and are found stored. Declines to run without a bot's token.
    Invariants: an update is confirmed to Telegram only after it is stored, or given up with a case; one that is stored and
    cannot be settled now is left to the payment watcher; none holds up the others; pending updates are never dropped.
    """

    payments: PaymentSettings
    pool: str = "pool.gateway"
    wait: float = attrs.field(default=25.0, validator=attrs.validators.ge(0))
    "Seconds that one `getUpdates` waits for news."
    first_pause: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    last_pause: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    "Seconds between two attempts while Telegram or the database is away; they double from the first to the last."
    concurrency: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    "Updates that are worked on at the same time; a checkout waits for none of them."
    turn_seconds: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    "Seconds, on the database's clock, after which another process polls if this one is not heard of."
    _turn: Turn | None = attrs.field(init=False, default=None)

    async def on_start(self) -> None:
        settings = self.payments.telegram
        if not settings.token:
            raise Ignore("payments.telegram.token is not set")
        if settings.mode == "webhook" and not settings.webhook_url:
            raise Ignore("payments.telegram.mode is webhook, and webhook_url is not set: register it yourself")
        self.context.describe(mode=settings.mode)
        self._turn = Turn(self.context, pool_of(self.context, self.pool), EPOCH, self.turn_seconds)
        self.context.start_task(self._run, name="updates", inherit_deadline=False)

    async def on_stop(self, reason: StopReason) -> None:
        if self._turn is not None:
            await self._turn.end()

    async def _run(self) -> None:
        settings = self.payments.telegram
        telegram = Telegram(settings, TelegramApi.of(settings.url, settings.token, read_seconds=self.wait + 10))
        try:
            if settings.mode == "webhook":
                await self._insist(
                    telegram, "setWebhook", _webhook(settings.webhook_url, settings.webhook_secret.reveal())
                )
                await trio.sleep_forever()
            assert self._turn is not None
            self._turn.begin()
            while True:
                async with self._turn.taken():
                    # Not until Telegram has let go of the webhook does it answer getUpdates. What is pending stays.
                    await self._insist(telegram, "deleteWebhook", {"drop_pending_updates": False})
                    await self._poll(telegram)
        finally:
            with trio.CancelScope(shield=True):
                await telegram.aclose()

    async def _insist(self, telegram: Telegram, method: str, body: object) -> None:
        pause = self.first_pause
        while True:
            try:
                await telegram.api.demand(method, body)
            except (ProviderUnavailable, ProviderRefused) as error:
                pause = await self._rest(pause, str(error))
            else:
                self.context.ready(True)
                return

    async def _poll(self, telegram: Telegram) -> None:
        intake = Intake.of(self.context, self.pool)
        pause = self.first_pause
        async with trio.open_nursery() as nursery:
            work = UpdatesAtWork(telegram, intake, nursery, trio.CapacityLimiter(self.concurrency))
            while True:
                request = {"offset": work.offset, "timeout": int(self.wait), "allowed_updates": list(UPDATES)}
                try:
                    updates = await telegram.api.updates(request, within=self.wait + 10)
                    work.begin(updates)
                    await work.until_done(within=_PATIENCE)
                    self.context.failpoint("taken")
                except (ProviderUnavailable, ProviderRefused, NotUnderstood) as error:
                    pause = await self._rest(pause, str(error))
                    continue
                if trouble := work.trouble():
                    # What was stored stays so: the next request confirms it, and brings the rest again.
                    pause = await self._rest(pause, trouble)
                else:
                    pause = self.first_pause
                    self.context.ready(True)

    async def _rest(self, pause: float, why: str) -> float:
        self.context.ready(False, why)
        self.context.emit(ProviderAway(self.context.name, NAME, why))
        await trio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing
        return min(pause * 2, self.last_pause)


def _webhook(url: str, secret: str) -> dict[str, object]:
    return {"url": url, "secret_token": secret, "allowed_updates": list(UPDATES), "drop_pending_updates": False}
