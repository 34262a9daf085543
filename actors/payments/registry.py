"""Which providers are on."""

from __future__ import annotations

import os
import re

from actors.payments.cryptobot import CryptoBot
from actors.payments.provider import Provider
from actors.payments.settings import PaymentSettings
from actors.payments.stripe import Stripe
from actors.payments.telegram import Telegram
from actors.payments.yookassa import YooKassa
from runtime import StartRefused

Providers = dict[str, Provider]

_SECRET_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")


def open_providers(settings: PaymentSettings) -> Providers:
    """An adapter, with its HTTP client, for each provider that has its credentials; by name.

    Raises StartRefused (exit code 78) when one is configured by half: it would take payments of which no message reaches us.
    """
    found: Providers = {}
    telegram = settings.telegram
    if telegram.token:
        if telegram.mode == "webhook" and not _SECRET_TOKEN.fullmatch(telegram.webhook_secret.reveal()):
            raise _half(
                "telegram", "webhook_secret_file", '1 to 256 characters of A-Z, a-z, 0-9, _ and -, or mode = "polling"'
            )
        found["telegram"] = Telegram.of(telegram)
    if settings.cryptobot.token:
        found["cryptobot"] = CryptoBot.of(settings.cryptobot)
    yookassa = settings.yookassa
    if yookassa.secret_key:
        if not yookassa.shop_id:
            raise _half("yookassa", "shop_id", "the shop's number")
        if not yookassa.return_url:
            raise _half("yookassa", "return_url", "where the customer comes back to")
        try:
            found["yookassa"] = YooKassa.of(yookassa)
        except ValueError as error:
            raise _half("yookassa", "networks", f"networks such as 185.71.76.0/27: {error}") from error
    stripe = settings.stripe
    if stripe.secret_key or stripe.webhook_secret:
        if not (stripe.secret_key and stripe.webhook_secret):
            missing = "webhook_secret_file" if stripe.secret_key else "secret_key_file"
            raise _half("stripe", missing, "both of its secrets")
        if not stripe.success_url:
            raise _half("stripe", "success_url", "where the customer comes back to")
        found["stripe"] = Stripe.of(stripe)
    return found


async def close_providers(providers: Providers) -> None:
    """Close their connections."""
    for provider in providers.values():
        await provider.aclose()


def _half(provider: str, key: str, wanted: str) -> StartRefused:
    return StartRefused(
        f"payments.{provider} has credentials, but payments.{provider}.{key} is not usable: it needs {wanted}; "
        "without it payments could come in that nobody hears of",
        exit_code=os.EX_CONFIG,
    )
