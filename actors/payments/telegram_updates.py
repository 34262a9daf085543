"""Telegram's updates by long polling, or the registration of the webhook that replaces it."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import attrs
import trio

from actors.payments.events import DeliveryUnread, ProviderAway
from actors.payments.fields import whole
from actors.payments.intake import Intake, Unsettled
from actors.payments.provider import NotUnderstood, ProviderRefused, ProviderUnavailable
from actors.payments.settings import PaymentSettings
from actors.payments.telegram import NAME, UPDATES, Telegram
from actors.payments.telegram_api import TelegramApi
from runtime.actor import Actor
from runtime.errors import Ignore


@attrs.define(eq=False)
class TelegramUpdates(Actor):
    """Takes the bot's updates by `getUpdates`; in webhook mode it registers the webhook once and then rests.

    Role: the other way in for Telegram's payments. Owns: nothing that may not die with it; which updates were taken is
    known to Telegram. Receives: nothing. Sends: requests for leases to `pool`.
    On crash: updates that were not confirmed come again, and are found stored. Declines to run without a bot's token.
    Invariants: an update is confirmed to Telegram only after it is stored; one that is stored and cannot be settled now is
    left to the payment watcher and holds nobody back; pending updates are never dropped.
    """

    payments: PaymentSettings
    pool: str = "pool.gateway"
    wait: float = attrs.field(default=25.0, validator=attrs.validators.ge(0))
    "Seconds that one `getUpdates` waits for news."
    first_pause: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    last_pause: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    "Seconds between two attempts while Telegram or the database is away; they double from the first to the last."

    async def on_start(self) -> None:
        settings = self.payments.telegram
        if not settings.token:
            raise Ignore("payments.telegram.token is not set")
        if settings.mode == "webhook" and not settings.webhook_url:
            raise Ignore("payments.telegram.mode is webhook, and webhook_url is not set: register it yourself")
        self.context.describe(mode=settings.mode)
        self.context.start_task(self._run, name="updates", inherit_deadline=False)

    async def _run(self) -> None:
        settings = self.payments.telegram
        telegram = Telegram(settings, TelegramApi.of(settings.url, settings.token, read_seconds=self.wait + 10))
        try:
            if settings.mode == "webhook":
                await self._insist(
                    telegram, "setWebhook", _webhook(settings.webhook_url, settings.webhook_secret.reveal())
                )
                await trio.sleep_forever()
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
        offset, pause = 0, self.first_pause
        while True:
            request = {"offset": offset, "timeout": int(self.wait), "allowed_updates": list(UPDATES)}
            try:
                updates = await telegram.api.updates(request, within=self.wait + 10)
                for update in updates:
                    if isinstance(update, dict):
                        offset = max(offset, await self._take(telegram, intake, update) + 1)
                self.context.failpoint("taken")
            except (ProviderUnavailable, ProviderRefused, Unsettled) as error:
                # Updates taken so far stay taken: the next request confirms them, and brings the rest again.
                pause = await self._rest(pause, str(error))
            else:
                pause = self.first_pause
                self.context.ready(True)

    async def _take(self, telegram: Telegram, intake: Intake, update: dict[str, object]) -> int:
        """Store and settle one update, and return its number."""
        number = whole(update, "update_id")
        body = json.dumps(update, ensure_ascii=False, default=_as_number).encode()
        try:
            await intake.receive(telegram, telegram.event_id(update), body)
        except Unsettled as error:
            if not error.is_stored:
                raise
        except NotUnderstood as error:  # it has a number, so this is a defect of ours in reading it
            self.context.emit(DeliveryUnread(self.context.name, NAME, str(error)))
        return number

    async def _rest(self, pause: float, why: str) -> float:
        self.context.ready(False, why)
        self.context.emit(ProviderAway(self.context.name, NAME, why))
        await trio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing
        return min(pause * 2, self.last_pause)


def _webhook(url: str, secret: str) -> dict[str, object]:
    return {"url": url, "secret_token": secret, "allowed_updates": list(UPDATES), "drop_pending_updates": False}


def _as_number(value: object) -> float:
    """Decimals occur only where no money is (a location)."""
    assert isinstance(value, Decimal)
    return float(value)
