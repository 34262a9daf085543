"""A quote is exact to what its asset can hold, at a rate that is new enough and within its bounds; or it is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.payments.quotes import QuoteTooCoarse, RateMissing, RateOutOfBounds, RateTooOld, quote_in
from actors.payments.settings import CryptoBotSettings, YooKassaSettings
from db.billing.orders import UsedRate
from db.billing.pricing import RATED, Rate
from db.errors import BusinessError
from db.money import DIGITS, Money

PRICE = Money(14900)


def priced(asset: str, rate: str, lowest: str = "", highest: str = "") -> CryptoBotSettings:
    return CryptoBotSettings(asset=asset, rate=rate, rate_lowest=lowest, rate_highest=highest)


def rate_of(asset: str, value: str, age: float = 0.0) -> Rate:
    return Rate(asset, Decimal(value), "cryptobot", datetime(2026, 1, 1, tzinfo=UTC), age)


@pytest.mark.parametrize(
    ("asset", "rate", "amount"),
    [
        ("BTC", "9000000", "0.00001656"),
        ("ETH", "300000", "0.00049667"),
        ("TON", "543.79", "0.274002832"),
        ("USDT", "92.50", "1.610811"),
        ("USD", "93.10", "1.61"),
        ("XTR", "1.30", "115"),
    ],
)
def test_each_asset_is_quoted_to_its_own_precision(asset: str, rate: str, amount: str) -> None:
    quote = quote_in(PRICE, priced(asset, rate), "payments.cryptobot", None)
    assert quote.amount == Money.parse(amount, asset)


@given(
    asset=st.sampled_from(list(RATED)),
    price=st.integers(6400, 10_000_000),
    rate=st.decimals("0.01", "20000000", places=2),
)
def test_no_quote_moves_a_price_by_more_than_a_hundredth(asset: str, price: int, rate: Decimal) -> None:
    try:
        quote = quote_in(Money(price), priced(asset, str(rate)), "payments.cryptobot", None)
    except QuoteTooCoarse:
        return
    charged = Decimal(quote.amount.amount).scaleb(-DIGITS[asset]) * quote.rate
    assert abs(charged * 100 - price) <= Decimal(price) / 100


def test_a_price_that_the_asset_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(QuoteTooCoarse, match=r"more than 1%.*payments\.cryptobot\.asset"):
        quote_in(PRICE, priced("XTR", "300"), "payments.cryptobot", None)
    # 49.2 Stars: one more would be 1.6 % more, so it is the nearest number of them.
    assert quote_in(Money(6400), priced("XTR", "1.30"), "payments.cryptobot", None).amount == Money(49, "XTR")


def test_roubles_need_no_rate() -> None:
    assert quote_in(PRICE, YooKassaSettings(), "payments.yookassa", None).amount == PRICE


@pytest.mark.parametrize("asset", ["UNVALUED", "KZT", ""])
def test_an_asset_that_has_no_value_here_is_never_quoted(asset: str) -> None:
    with pytest.raises(BusinessError, match="known are RUB, USD"):
        quote_in(PRICE, priced(asset, "90"), "payments.cryptobot", None)


def test_a_rate_of_the_table_is_used_while_it_is_new_and_within_its_bounds() -> None:
    settings = priced("USDT", "table", "70", "130")
    assert quote_in(PRICE, settings, "t", rate_of("USDT", "92.5", 900.0)).rate == Decimal("92.5")
    with pytest.raises(RateMissing, match="atlas rates set USDT"):
        quote_in(PRICE, settings, "t", None)
    with pytest.raises(RateTooOld, match=r"901 s old .* t\.rate_max_age allows 900 s"):
        quote_in(PRICE, settings, "t", rate_of("USDT", "92.5", 901.0))
    for value, name in (("69.99", "rate_lowest"), ("130.01", "rate_highest")):
        with pytest.raises(RateOutOfBounds, match=name):
            quote_in(PRICE, settings, "t", rate_of("USDT", value))
    with pytest.raises(RateOutOfBounds):
        quote_in(PRICE, attrs.evolve(settings, rate="0.01"), "t", None)


@pytest.mark.parametrize(
    ("rate", "lowest", "highest", "why"),
    [
        ("table", "", "", "would sell for nothing"),
        ("table", "70", "", "would sell for nothing"),
        ("90", "130", "70", "is above rate_highest"),
        ("ninety", "", "", "such as"),
        ("-1", "", "", "such as"),
        ("90", "NaN", "", "rate_lowest"),
    ],
)
def test_a_rate_that_is_set_by_half_is_refused_at_the_start(rate: str, lowest: str, highest: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        priced("USDT", rate, lowest, highest)


def test_a_quote_says_where_its_rate_comes_from_and_what_it_had_to_keep_to() -> None:
    of_setting = quote_in(PRICE, priced("USDT", "92.50", highest="95"), "payments.cryptobot", None).used
    assert of_setting == UsedRate("payments.cryptobot.rate", highest=Decimal(95))
    found = rate_of("USDT", "92.50", age=60.0)
    of_table = quote_in(PRICE, priced("USDT", "table", "90", "95"), "payments.cryptobot", found).used
    assert of_table == UsedRate("cryptobot", found.taken_at, timedelta(seconds=900), Decimal(90), Decimal(95))
