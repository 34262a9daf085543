"""Which providers there are, and which are on."""

from __future__ import annotations

import os
from typing import Final

from actors.payments.cryptobot import CryptoBot
from actors.payments.heleket import Heleket
from actors.payments.platega import Platega
from actors.payments.provider import Provider
from actors.payments.settings import PaymentSettings
from actors.payments.stripe import Stripe
from actors.payments.telegram import Telegram
from actors.payments.yookassa import YooKassa
from runtime import StartRefused

Providers = dict[str, Provider]

ADAPTERS: Final[tuple[type[Provider], ...]] = (Telegram, CryptoBot, YooKassa, Stripe, Platega, Heleket)
"""All of them; each has its table `[payments.<name>]`, which is a field of PaymentSettings."""


def open_providers(settings: PaymentSettings) -> Providers:
    """An adapter, with its HTTP client, for each provider that has its credentials; by name.

    Raises StartRefused (exit code 78) with what the settings say against themselves, as when one is configured by half: it would
    take payments of which no message reaches us.
    """
    wrong = list(settings.check_configuration())
    if wrong:
        raise StartRefused("; ".join(wrong), exit_code=os.EX_CONFIG)
    found: Providers = {}
    for adapter in ADAPTERS:
        opened = adapter.open(getattr(settings, adapter.name))
        if opened is not None:
            found[adapter.name] = opened
    return found


async def close_providers(providers: Providers) -> None:
    """Close the connections of all of these providers."""
    for provider in providers.values():
        await provider.aclose()
