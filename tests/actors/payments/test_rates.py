"""Rates are asked for, kept with their age, and refuse an order when they are too old; nothing is changed then."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest

from actors.payments.events import ProviderAway
from actors.payments.quotes import RateOutOfBounds, RateTooOld
from actors.payments.registry import open_providers
from actors.payments.settings import PaymentSettings, RateSourceSettings
from db.billing.pricing import find_plan, list_rates, note_rates
from db.money import Money
from db.tx import Tx
from runtime import StartRefused
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_payment_watcher import look


def from_table(settings: PaymentSettings) -> PaymentSettings:
    crypto = attrs.evolve(settings.cryptobot, rate="table", rate_lowest="70", rate_highest="130")
    return attrs.evolve(settings, cryptobot=crypto, rates=RateSourceSettings("cryptobot", every=1.0))


async def quote(here: Harness) -> Money:
    async def now(tx: Tx) -> Money:
        price = (await find_plan(tx, "basic", 30)).price
        return (await here.providers["cryptobot"].quote_now(tx, price)).amount

    return await here.run(now)


async def test_the_watcher_asks_for_rates_and_an_old_or_a_mad_one_sells_nothing(database_dsn: str) -> None:
    async with harness(database_dsn, change=from_table) as here:
        outside = here.outside.cryptobot
        outside.rates = {("USDT", "RUB"): "92.50", ("BTC", "RUB"): "", ("USDT", "USD"): "1", ("NOT", "RUB"): "0.2"}
        watcher = await here.watcher()
        await look(here, watcher)
        assert [(rate.asset, rate.value) for rate in await here.run(list_rates)] == [("USDT", Decimal("92.5"))]
        assert await quote(here) == Money(1_610_811, "USDT")
        await here.move_clock(minutes=16)
        with pytest.raises(RateTooOld):
            await quote(here)
        outside.rates = {("USDT", "RUB"): "9250"}
        await look(here, await here.watcher("another"))
        with pytest.raises(RateOutOfBounds):
            await quote(here)
        assert await here.value("SELECT count(*) FROM orders") == 0


async def test_a_source_that_is_away_leaves_the_rate_that_there_is(database_dsn: str) -> None:
    async with harness(database_dsn, change=from_table) as here:
        await here.run(note_rates, {"USDT": Decimal(90)}, "cryptobot")
        here.outside.cryptobot.troubles.before.extend([503] * 3)
        await look(here, await here.watcher())
        assert (await here.until_event(ProviderAway)).provider == "cryptobot"
        assert await quote(here) == Money(1_655_556, "USDT")


def test_a_source_of_rates_that_is_off_refuses_the_start() -> None:
    with pytest.raises(StartRefused, match=r"payments\.rates\.source"):
        open_providers(PaymentSettings(rates=RateSourceSettings("cryptobot")))
