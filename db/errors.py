"""What business functions refuse, and how an operator's command exits because of it (sysexits numbers)."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

from runtime.errors import AtlasError


class BusinessError(AtlasError):
    """A request that the rules refuse. Nothing was changed; repeating it unchanged is refused again."""

    exit_code: ClassVar[int] = 65


class UnknownCustomer(BusinessError):
    """Nobody with this Telegram id or customer id is known."""

    exit_code: ClassVar[int] = 67

    def __init__(self, what: str) -> None:
        super().__init__(f"no customer with {what}; a customer is added by first contact or by an operator")


class UnknownTariff(BusinessError):
    """The price list has no such tariff; the text names those it has."""

    def __init__(self, tariff: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = get_close_matches(tariff, names, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        super().__init__(f"no tariff is called {tariff!r}{hint} The price list has {', '.join(names) or 'no tariffs'}.")


class UnknownPeriod(BusinessError):
    """The tariff is not sold for this number of days; the text names the periods that are."""

    def __init__(self, tariff: str, days: int, known: Iterable[int]) -> None:
        periods = ", ".join(f"{period} d" for period in sorted(known))
        super().__init__(f"tariff {tariff!r} is not sold for {days} days. It is sold for {periods}.")


class UnknownOrder(BusinessError):
    """No order has this number."""

    def __init__(self, order_id: int) -> None:
        super().__init__(f"there is no order {order_id}")


class UnknownNode(BusinessError):
    """No VPN node is registered under this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no VPN node {name!r} is registered in the database; it is registered when its actor starts")


class InsufficientFunds(BusinessError):
    """The balance does not cover the amount; nothing was debited."""


class OrderConflict(BusinessError):
    """The idempotency key already stands for a different order; nothing was changed."""


class ChargeConflict(BusinessError):
    """The charge is already recorded with other facts. A provider repeats a charge, it never changes one: find out."""


class LedgerConflict(BusinessError):
    """The idempotency key already stands for a different journal; nothing was posted."""


class ClockRefused(BusinessError):
    """The clock moves only in a database that was created as demo or test."""
