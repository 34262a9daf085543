"""Money: whole smallest units of one currency, and nothing that could round behind one's back."""

from decimal import Decimal, InvalidOperation
from typing import ClassVar

import attrs

from db.errors import BusinessError

DIGITS = {
    "RUB": 2,
    "USD": 2,
    "EUR": 2,
    "XTR": 0,
    "USDT": 6,
    "USDC": 6,
    "TON": 9,
    "BTC": 8,
    "LTC": 8,
    "ETH": 8,
    "UNVALUED": 0,
}
"""Decimals of each asset. The table `assets` holds the same, and a test compares them."""

UNVALUED = "UNVALUED"
"""One unit of it stands for money of which only the provider's words are known. It has no rate and no price."""

_BIGINT = 2**63 - 1


class NotMoney(BusinessError):
    """A value that is no amount of money: a float, a fraction of the smallest unit, an unknown currency."""


class MixedCurrencies(BusinessError):
    """Two amounts of different currencies were added, subtracted or compared."""

    exit_code: ClassVar[int] = 70


@attrs.frozen(order=False)
class Money:
    """An exact amount in the smallest unit of `currency`: `Money(14900, "RUB")` is 149.00 RUB.

    Adding, subtracting and comparing need one currency on both sides and raise `MixedCurrencies` otherwise. Building
    one from a float, a bool or an unknown currency raises `NotMoney`; so does an amount that PostgreSQL's bigint
    cannot hold.
    """

    amount: int
    currency: str = "RUB"

    def __attrs_post_init__(self) -> None:
        if type(self.amount) is not int:
            raise NotMoney(
                f"money is a whole number of the smallest unit, not {type(self.amount).__name__} {self.amount!r}; "
                "use Money.parse for decimal text"
            )
        if self.currency not in DIGITS:
            raise NotMoney(f"unknown currency {self.currency!r}; known are {', '.join(DIGITS)}")
        if abs(self.amount) > _BIGINT:
            raise NotMoney(f"{self.amount} is more than any account can hold")

    @classmethod
    def parse(cls, text: str | Decimal, currency: str = "RUB") -> "Money":
        """Read decimal text in whole units, such as `"149.00"`; a fraction of the smallest unit is `NotMoney`."""
        if not isinstance(text, str | Decimal):
            raise NotMoney(f"decimal text is needed, not {type(text).__name__}")
        if currency not in DIGITS:
            raise NotMoney(f"unknown currency {currency!r}; known are {', '.join(DIGITS)}")
        try:
            value = Decimal(text)
        except InvalidOperation as error:
            raise NotMoney(f"{text!r} is no amount of money") from error
        if not value.is_finite():
            raise NotMoney(f"{text!r} is no amount of money")
        scaled = value.scaleb(DIGITS[currency])
        if scaled != scaled.to_integral_value():
            raise NotMoney(f"{text} {currency} has more than {DIGITS[currency]} decimals")
        return cls(int(scaled), currency)

    def percent(self, percent: int) -> "Money":
        """`floor(amount × percent / 100)`: how discounts and rewards are computed."""
        if type(percent) is not int or not 0 <= percent <= 100:
            raise NotMoney(f"a percentage is a whole number from 0 to 100, not {percent!r}")
        return Money(self.amount * percent // 100, self.currency)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount - self._same(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.amount <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.amount > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.amount >= self._same(other)

    def __bool__(self) -> bool:
        return self.amount != 0

    def __str__(self) -> str:
        digits = DIGITS[self.currency]
        return f"{Decimal(self.amount).scaleb(-digits):.{digits}f} {self.currency}"

    def _same(self, other: object) -> int:
        if not isinstance(other, Money):
            raise NotMoney(f"{self} cannot be combined with {type(other).__name__} {other!r}")
        if other.currency != self.currency:
            raise MixedCurrencies(f"{self} and {other} are different currencies")
        return other.amount


def convert(amount: Money, rate: Decimal, currency: str = "RUB") -> Money:
    """Value `amount` at `rate` whole units of `currency` for one whole unit, rounded down."""
    value = Decimal(amount.amount).scaleb(-DIGITS[amount.currency]) * rate
    return Money(int(value.scaleb(DIGITS[currency])), currency)
