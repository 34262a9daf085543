"""What a provider would charge for a price in roubles."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation

from db.errors import BusinessError
from db.money import DIGITS, Money
from db.orders import Quote

_SHOWN_DIGITS = 2
"""Crypto amounts are rounded up to as many decimals as people read."""


def quote_in(price: Money, asset: str, rate: str, setting: str) -> Quote:
    """`price` in `asset` at `rate` roubles for one whole unit, rounded up. Raises BusinessError without a usable rate."""
    if asset == price.currency:
        return Quote(price, Decimal(1))
    if asset not in DIGITS:
        raise BusinessError(
            f"{setting.rpartition('.')[0]}.asset = {asset!r} is no known asset; known are {', '.join(DIGITS)}"
        )
    try:
        value = Decimal(rate)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise BusinessError(
            f'there is no rate for {asset}: set {setting} to the roubles for one whole unit, such as "92.50"'
        )
    whole = Decimal(price.amount).scaleb(-DIGITS[price.currency]) / value
    digits = min(DIGITS[asset], _SHOWN_DIGITS)
    return Quote(Money.parse(whole.quantize(Decimal(1).scaleb(-digits), ROUND_CEILING), asset), value)
