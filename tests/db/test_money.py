"""Money is exact or it is an error."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.money import DIGITS, MixedCurrencies, Money, NotMoney, convert
from tests.db.database import Database


@pytest.mark.parametrize("value", [1.0, True, "1", Decimal(1), None, 2**63])
def test_only_whole_numbers_that_fit_are_money(value: Any) -> None:
    with pytest.raises(NotMoney):
        Money(value)


@pytest.mark.parametrize("text", [149.0, "149.001", "x", "NaN", "Infinity", ""])
def test_text_that_is_not_exact_is_refused(text: Any) -> None:
    with pytest.raises(NotMoney):
        Money.parse(text)


def test_text_is_read_in_whole_units() -> None:
    assert Money.parse("149") == Money(14900)
    assert Money.parse("1.862500", "USDT") == Money(1_862_500, "USDT")
    assert str(Money(14905)) == "149.05 RUB"
    assert str(Money(7, "XTR")) == "7 XTR"


@given(st.integers(-(10**15), 10**15), st.sampled_from(sorted(DIGITS)))
def test_what_is_printed_reads_back(amount: int, currency: str) -> None:
    money = Money(amount, currency)
    assert Money.parse(str(money).split()[0], currency) == money


def test_currencies_do_not_mix() -> None:
    one, other = Money(1), Money(1, "USD")
    for combine in (one.__add__, one.__sub__, one.__lt__, one.__le__, one.__gt__, one.__ge__):
        with pytest.raises(MixedCurrencies):
            combine(other)
    assert one != other


def test_money_does_not_combine_with_numbers() -> None:
    with pytest.raises(NotMoney):
        Money(1) + 1  # type: ignore[operator]  # that is the mistake under test


@given(st.integers(0, 10**12), st.integers(0, 100))
def test_a_percentage_is_rounded_down(amount: int, percent: int) -> None:
    share = Money(amount).percent(percent).amount
    assert share * 100 <= amount * percent < (share + 1) * 100


def test_conversion_is_rounded_down_and_exact() -> None:
    assert convert(Money(1_000_001, "USDT"), Decimal("80.00")) == Money(8000)
    assert convert(Money(1_862_500, "USDT"), Decimal(80)) == Money(14900)


async def test_the_database_knows_the_same_assets(database: Database) -> None:
    async with database.connect() as connection:
        rows = await connection.fetch("SELECT code, digits FROM assets")
    assert {row["code"]: row["digits"] for row in rows} == DIGITS
