"""What a provider would charge for a price in roubles: the rate that may be used, and the amount that its asset can hold."""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal, InvalidOperation
from typing import ClassVar, Final, Protocol, runtime_checkable

import attrs

from db.billing.orders import Quote, UsedRate
from db.billing.pricing import Rate
from db.errors import BusinessError
from db.money import DIGITS, UNVALUED, Money

FROM_TABLE: Final = "table"
"""The value of a setting `rate` that means: the newest rate of the asset in the database, as `atlas rates` shows it."""
MOST_MOVED: Final = Decimal("0.01")
"""How much of the price a quote may be off because its asset has no smaller unit."""


class RateMissing(BusinessError):
    """Nobody has said what the asset is worth; nothing was changed."""


class RateTooOld(BusinessError):
    """The newest rate of the asset is older than its setting allows; nothing was changed."""


class RateOutOfBounds(BusinessError):
    """The rate is below or above what its settings allow; nothing was changed."""


class QuoteTooCoarse(BusinessError):
    """The asset has no unit small enough for the price; nothing was changed."""


@runtime_checkable
class PricedIn(Protocol):
    """Settings that say in what an invoice is paid."""

    @property
    def asset(self) -> str:
        """What an invoice is quoted in, such as RUB or USDT."""
        ...

    @property
    def rate(self) -> str:
        """Roubles for one whole unit of it, or `table`; empty if none is set, or none is needed."""
        ...

    @property
    def rate_lowest(self) -> str:
        """A lower rate is refused; empty for no bound."""
        ...

    @property
    def rate_highest(self) -> str:
        """A higher rate is refused; empty for no bound."""
        ...

    @property
    def rate_max_age(self) -> float:
        """Seconds after which a rate of the table is not used any more."""
        ...


@attrs.frozen
class RateSettings:
    """What an asset is worth, in the table of a provider that is not paid in roubles."""

    rate: str = ""
    """Roubles for one whole unit of `asset`, as decimal text, or `table`: the newest one that `atlas rates` shows. Not needed
    for RUB."""
    rate_lowest: str = ""
    """A lower rate is refused. Needed with `rate = "table"`."""
    rate_highest: str = ""
    """A higher rate is refused. Needed with `rate = "table"`."""
    rate_max_age: float = attrs.field(default=900.0, validator=attrs.validators.gt(0))
    """Seconds after which a rate of the table is not used any more."""

    def __attrs_post_init__(self) -> None:
        assert isinstance(self, PricedIn)
        if problem := rate_problem(self):
            raise ValueError(problem)


class PaidInRoubles:
    """What the settings of a provider that is paid in roubles need no word about."""

    asset: ClassVar[str] = "RUB"
    rate: ClassVar[str] = ""
    rate_lowest: ClassVar[str] = ""
    rate_highest: ClassVar[str] = ""
    rate_max_age: ClassVar[float] = 0.0


def quote_in(price: Money, settings: PricedIn, table: str, found: Rate | None) -> Quote:
    """Return `price` in the asset of a provider whose settings are the table `table`.

    `found` is the asset's newest rate in the database, which counts where `rate = "table"`. Raises RateMissing, RateTooOld,
    RateOutOfBounds and QuoteTooCoarse, and BusinessError for an asset that we do not know.
    """
    asset = settings.asset
    if asset == price.currency:
        return Quote(price, Decimal(1))
    if asset not in DIGITS or asset == UNVALUED:
        known = ", ".join(known for known in DIGITS if known != UNVALUED)
        raise BusinessError(f"{table}.asset = {asset!r} is no known asset; known are {known}")
    rate = _table_rate(settings, table, found) if settings.rate == FROM_TABLE else _own_rate(settings, table)
    _refuse_out_of_bounds(rate, settings, table)
    return Quote(_amount(price, asset, rate, table), rate, _used(settings, table, found))


def rate_problem(settings: PricedIn) -> str:
    """What is wrong with the settings of a rate, for an error at the start; empty if nothing is."""
    bounds = {name: getattr(settings, name) for name in ("rate_lowest", "rate_highest")}
    for name, text in [("rate", "" if settings.rate == FROM_TABLE else settings.rate), *bounds.items()]:
        if text and _decimal(text) <= 0:
            return f'{name} is the roubles for one whole unit, such as "92.50", not {text!r}'
    if settings.rate == FROM_TABLE and not all(bounds.values()):
        return f'rate = "{FROM_TABLE}" needs rate_lowest and rate_highest: a source that errs would sell for nothing'
    if all(bounds.values()) and _decimal(settings.rate_lowest) > _decimal(settings.rate_highest):
        return f"rate_lowest = {settings.rate_lowest!r} is above rate_highest = {settings.rate_highest!r}"
    return ""


def _own_rate(settings: PricedIn, table: str) -> Decimal:
    value = _decimal(settings.rate)
    if value <= 0:
        raise RateMissing(
            f'there is no rate for {settings.asset}: set {table}.rate to the roubles for one whole unit, such as "92.50"'
        )
    return value


def _used(settings: PricedIn, table: str, found: Rate | None) -> UsedRate:
    """Where the rate came from and what it had to keep to, for whoever looks at the order later."""
    lowest, highest = (_decimal(text) if text else None for text in (settings.rate_lowest, settings.rate_highest))
    if settings.rate != FROM_TABLE or found is None:
        return UsedRate(f"{table}.rate", lowest=lowest, highest=highest)
    return UsedRate(found.source, found.taken_at, timedelta(seconds=settings.rate_max_age), lowest, highest)


def _table_rate(settings: PricedIn, table: str, found: Rate | None) -> Decimal:
    if found is None:
        raise RateMissing(
            f"there is no rate for {settings.asset} in the database: set payments.rates.source, or `atlas rates set "
            f"{settings.asset} …`; {table}.rate asks for one"
        )
    if found.age > settings.rate_max_age:
        raise RateTooOld(
            f"the rate of {settings.asset} is {found.age:.0f} s old ({found.value.normalize():f} by {found.source} at "
            f"{found.taken_at:%Y-%m-%d %H:%M:%S} UTC), and {table}.rate_max_age allows {settings.rate_max_age:g} s: see why "
            "its source is silent, or `atlas rates set`"
        )
    return found.value


def _refuse_out_of_bounds(rate: Decimal, settings: PricedIn, table: str) -> None:
    lowest, highest = settings.rate_lowest, settings.rate_highest
    for name, text, is_beyond in (
        ("rate_lowest", lowest, bool(lowest) and rate < _decimal(lowest)),
        ("rate_highest", highest, bool(highest) and rate > _decimal(highest)),
    ):
        if is_beyond:
            raise RateOutOfBounds(
                f"a rate of {rate.normalize():f} roubles for one {settings.asset} is beyond {table}.{name} = {text!r}; if it "
                "is right, change that setting"
            )


def _amount(price: Money, asset: str, rate: Decimal, table: str) -> Money:
    """In the asset's smallest units: rounded up, or to the nearest one where that would be too much."""
    exact = (Decimal(price.amount).scaleb(-DIGITS[price.currency]) / rate).scaleb(DIGITS[asset])
    for rounding in (ROUND_CEILING, ROUND_HALF_UP):
        amount = exact.quantize(Decimal(1), rounding)
        if amount > 0 and abs(amount - exact) <= exact * MOST_MOVED:
            return Money(int(amount), asset)
    raise QuoteTooCoarse(
        f"{price} is {exact.scaleb(-DIGITS[asset]):.3g} {asset} at {rate.normalize():f} roubles for one, and {asset} has "
        f"{DIGITS[asset]} decimals: rounding would move the price by more than {MOST_MOVED:.0%}; take another asset "
        f"({table}.asset), or another provider"
    )


def _decimal(text: str) -> Decimal:
    """The number, or 0 for what is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    return value if value.is_finite() else Decimal(0)
