"""A storefront beside a gateway and all providers, and people who write to its bot and press what they see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from actors.payments.settings import PaymentSettings
from actors.shop.settings import ShopSettings
from actors.storefront.settings import StorefrontSettings
from actors.storefront.storefront import Storefront
from db.billing.adjustments import adjust_balance
from db.customers import add_customer
from db.money import Money
from db.tx import Tx
from runtime import Ref
from runtime.testing import OnCrash
from simulators.telegram_chats import Shown, TelegramChats
from simulators.troubles import Json
from tests.actors.payments.payment_fixtures import PATIENCE, TELEGRAM_TOKEN, WEBHOOK_SECRET, Harness, harness

PUBLIC = "https://vpn.example"


@attrs.define(eq=False)
class Person:
    """Somebody with a telephone: reads the lowest message of the chat and presses its buttons."""

    shop: Shop
    id: int

    @property
    def sees(self) -> Shown:
        """The lowest message."""
        return self.shop.telegram.last(self.id)

    async def writes(self, text: str, language: str = "ru") -> Shown:
        """Write to the bot, and read what stands lowest once it was served."""
        await self.shop.deliver(self.shop.telegram.says(self.id, text, language))
        return self.sees

    async def sends_photo(self) -> Shown:
        """Send a photo."""
        await self.shop.deliver(self.shop.telegram.sends_photo(self.id))
        return self.sees

    async def presses(self, label: str, *, shown: Shown | None = None) -> Shown:
        """Press the button with this on it, below the lowest message or another one, and read what stands there then."""
        on = shown or self.sees
        return await self.sends(self.shop.telegram.data_of(on, label), on)

    async def sends(self, data: str, shown: Shown | None = None) -> Shown:
        """Send data for a message, whether or not a button of it carries that."""
        update = self.shop.telegram.presses(self.id, (shown or self.sees).number, data)
        await self.shop.deliver(update)
        await self.shop.telegram.until_answered(update)
        return self.sees


@attrs.define(eq=False)
class Shop:
    """The service, the bot's chats, and the storefront's actor."""

    harness: Harness
    telegram: TelegramChats
    ref: Ref
    settings: StorefrontSettings

    def person(self, telegram_id: int = 1001) -> Person:
        """Somebody."""
        return Person(self, telegram_id)

    async def deliver(self, update: Json) -> None:
        """Telegram brings an update by the webhook, until it is taken."""
        answer = await self.harness.deliver("telegram", self.telegram.event(update))
        assert answer.status_code == 200, answer.text

    async def fill(self, telegram_id: int, roubles: int) -> None:
        """Put money on a customer's balance."""

        async def give(tx: Tx) -> None:
            await add_customer(tx, telegram_id)
            await adjust_balance(
                tx,
                telegram_id,
                Money(roubles * 100),
                reason="a test",
                idempotency_key=f"fill-{telegram_id}",
                actor="test",
            )

        await self.harness.run(give)

    async def until(self, person: Person, holds: Callable[[Shown], bool]) -> Shown:
        """Wait until what a person sees is so."""
        with trio.fail_after(PATIENCE):
            while not holds(person.sees):
                await self.telegram.changed.wait()
        return person.sees


@asynccontextmanager
async def shop(
    dsn: str,
    settings: StorefrontSettings | None = None,
    *,
    on_crash: OnCrash = OnCrash.FAIL,
    look_every: float = 3600.0,
    change: Callable[[PaymentSettings], PaymentSettings] = lambda settings: settings,
    may_be_refused: bool = False,
) -> AsyncIterator[Shop]:
    """Start it all. At the end every money invariant must hold, and unless told otherwise Telegram must have refused nothing."""
    telegram = TelegramChats(TELEGRAM_TOKEN, WEBHOOK_SECRET)
    sells = ShopSettings(public_url=PUBLIC, title="ATLAS", support_url="https://t.me/atlas_help")
    async with harness(dsn, shop=sells, telegram=telegram, change=change) as here:
        chosen = settings or StorefrontSettings()
        actor = Storefront(chosen, here.outside.settings, sells, look_every=look_every)
        ref = await here.system.start(actor, name="storefront", on_crash=on_crash)
        yield Shop(here, telegram, ref, chosen)
        if not may_be_refused:
            # the same screen once more is no defect, and Telegram's way to say so
            assert [why for _, why in telegram.refusals if "message is not modified" not in why] == []
        for method, body in telegram.calls:
            assert TELEGRAM_TOKEN not in json.dumps(body), method
