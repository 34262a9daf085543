"""What a language brings: texts, names, and how it writes numbers, money, dates and plurals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Final

import attrs

from db.money import DIGITS

MOSCOW: Final = timezone(timedelta(hours=3))
"""The time that dates are written in; Moscow has had no other since 2014."""

_SYMBOLS: Final = {"RUB": "₽", "USD": "$", "EUR": "€", "XTR": "⭐"}
_NO_BREAK: Final = "\u00a0"
_MINUS: Final = "\u2212"


@attrs.frozen
class Language:
    """The texts of all notices in one language, and how it writes what they are filled with."""

    code: str
    months: tuple[str, ...]
    """As they stand in a date, January first."""
    zone: str
    """What the time in Moscow is called."""
    thousands: str
    decimals: str
    plural: Callable[[int], int]
    """Which of a noun's forms goes with a number."""
    nouns: Mapping[str, tuple[str, ...]]
    """What is counted, by the name of the field: its forms in the order that `plural` chooses from."""
    words: Mapping[str, str]
    """Names of codes, such as tariffs; a code that has none is shown as it is."""
    clauses: Mapping[str, str]
    """What a fact that may be absent adds to a text, by field."""
    texts: Mapping[str, str]
    """By kind; `kind.value` for the value of the field that chooses a variant (for a flag, `kind.field`); `kind@operator`
    for the operator."""

    def count(self, noun: str, number: int) -> str:
        """A number with the noun in its right form."""
        return f"{self.number(number)}{_NO_BREAK}{self.nouns[noun][self.plural(number)]}"

    def number(self, number: int) -> str:
        """A whole number with its thousands apart."""
        return f"{number:,}".replace(",", self.thousands)

    def money(self, amount: int, currency: str, *, signed: bool = False) -> str:
        """Smallest units of a currency, without decimals if they are all zero."""
        digits = DIGITS[currency]
        whole, rest = divmod(abs(amount), 10**digits)
        text = self.number(whole)
        if rest:
            places = f"{rest:0{digits}d}"
            text += self.decimals + (places if digits <= 2 else places.rstrip("0"))
        sign = _MINUS if amount < 0 else "+" if signed else ""
        return f"{sign}{text}{_NO_BREAK}{_SYMBOLS.get(currency, currency)}"

    def percent(self, number: int) -> str:
        """Return a whole number of percent as text, such as `25%`."""
        return f"{number}{_NO_BREAK if self.code == 'ru' else ''}%"

    def moment(self, moment: datetime) -> str:
        """Return a moment as its day and time in Moscow."""
        local = moment.astimezone(MOSCOW)
        return f"{local.day} {self.months[local.month - 1]} {local.year}, {local:%H:%M} {self.zone}"

    def left(self, span: timedelta) -> str:
        """How long something still lasts: days from two days on, else hours, else minutes, at least one."""
        minutes = max(1, round(span / timedelta(minutes=1)))
        if minutes >= 2 * 24 * 60 - 30:
            return self.count("days", round(minutes / (24 * 60)))
        if minutes >= 60:
            return self.count("hours", round(minutes / 60))
        return self.count("minutes", minutes)

    def word(self, code: str) -> str:
        """The name of a code."""
        return self.words.get(code, code)
