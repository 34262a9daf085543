"""The payment providers and Telegram's Bot API as they are outside, and how customers pay there."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from demo.errors import DemoFailed
from simulators.cryptobot import CryptoBot
from simulators.delivery import Event, deliver_until_taken
from simulators.server import serving
from simulators.stripe import Stripe
from simulators.telegram import Telegram
from simulators.yookassa import YooKassa

NAMES: Final = ("cryptobot", "yookassa", "stripe", "telegram")
_BOT: Final = "123456789:simulated-bot-of-the-demo-000000000000"
_WEBHOOK: Final = "webhook_of_the-demo"
_APP: Final = "12345:simulated-app-of-the-demo"
_SHOP_KEY: Final = "simulated-shop-key"
_STRIPE: Final = "sk_simulated"
_STRIPE_WEBHOOK: Final = "whsec_simulated"
_FAST: Final = "1000"
_REPEATED: Final = 0.25


class PaymentFailed(DemoFailed):
    """Money could not be paid, or the shop was not told of it."""


@attrs.frozen
class Providers:
    """All of them, served on the loopback interface."""

    telegram: Telegram
    cryptobot: CryptoBot
    yookassa: YooKassa
    stripe: Stripe
    environment: dict[str, str] = attrs.field(repr=False)
    """What tells ATLAS where they are."""

    async def pay(self, gateway: str, name: str, telegram_id: int, invoice_id: str, rng: random.Random) -> None:
        """Pay an invoice and deliver what the provider tells the shop, sometimes twice. Raises PaymentFailed."""
        events = await self._pay(gateway, name, telegram_id, invoice_id)
        if rng.random() < _REPEATED:
            events = [*events, events[0]]
        for event in events:
            await self.deliver(gateway, name, event)

    async def _pay(self, gateway: str, name: str, telegram_id: int, invoice_id: str) -> list[Event]:
        match name:
            case "cryptobot":
                return [self.cryptobot.pay(int(invoice_id))]
            case "yookassa":
                return [self.yookassa.pay(invoice_id)]
            case "stripe":
                return list(self.stripe.pay(invoice_id))
            case "telegram":
                update = self.telegram.check_out(telegram_id, invoice_id)
                await self.deliver(gateway, name, self.telegram.event(update))
                answer = await self.telegram.answer_to(update)
                if answer.get("ok") is not True:
                    raise PaymentFailed(f"the shop refused the checkout: {answer.get('error_message')}")
                return [self.telegram.event(self.telegram.pay(telegram_id, invoice_id))]
        raise ValueError(name)

    @staticmethod
    async def deliver(gateway: str, name: str, event: Event) -> None:
        """Tell the shop of an event until it has taken it. Raises PaymentFailed."""
        try:
            with trio.fail_after(30):
                await deliver_until_taken(f"{gateway}/payments/{name}", event)
        except (RuntimeError, trio.TooSlowError) as error:
            raise PaymentFailed(f"{name} could not tell the shop: {error}") from error


@asynccontextmanager
async def providers() -> AsyncIterator[Providers]:
    """Serve them all for the length of the block."""
    telegram = Telegram(_BOT, _WEBHOOK)
    cryptobot = CryptoBot(_APP)
    yookassa = YooKassa("506751", _SHOP_KEY)
    stripe = Stripe(_STRIPE, [_STRIPE_WEBHOOK])
    async with AsyncExitStack() as stack:
        bot, crypto, yoo, card = [
            await stack.enter_async_context(serving(each.app)) for each in (telegram, cryptobot, yookassa, stripe)
        ]
        settings = {
            "payments.telegram": {"token": _BOT, "webhook_secret": _WEBHOOK, "rate": "1.30", "url": bot},
            "payments.cryptobot": {"token": _APP, "rate": "92.50", "url": crypto},
            "payments.yookassa": {
                "shop_id": "506751",
                "secret_key": _SHOP_KEY,
                "return_url": "https://shop.example/thanks",
                "networks": '["127.0.0.1/32"]',
                "url": yoo,
            },
            "payments.stripe": {
                "secret_key": _STRIPE,
                "webhook_secret": _STRIPE_WEBHOOK,
                "rate": "93.10",
                "success_url": "https://shop.example/thanks",
                "url": card,
            },
            # Its customers come by a front end of their own, and its Telegram has no chats.
            "storefront": {"enabled": "false"},
            # A month passes in two minutes: a chat may have in a second what it has in hours otherwise.
            "telegram": {"token": _BOT, "url": bot, "rate": _FAST, "chat_rate": _FAST, "operator_chat_id": "1"},
        }
        yield Providers(telegram, cryptobot, yookassa, stripe, environment_of(settings))


def environment_of(settings: dict[str, dict[str, str]]) -> dict[str, str]:
    """Settings by table, as the environment variables that set them."""
    return {
        "ATLAS__" + "__".join(re.sub(r"[^a-z0-9]", "_", part).upper() for part in [*table.split("."), key]): value
        for table, keys in settings.items()
        for key, value in keys.items()
    }
