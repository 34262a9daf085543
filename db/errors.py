"""Every error of this room: what business functions refuse, and what can go wrong with a lease from request to return.

An operator's command exits with the error's `exit_code` (sysexits numbers).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from runtime import AtlasError
from runtime.wording import nearest


class BusinessError(AtlasError):
    """A request that the rules refuse. Nothing was changed; repeating it unchanged is refused again."""

    exit_code: ClassVar[int] = 65


class UnknownCustomer(BusinessError):
    """No customer has this Telegram id or customer id."""

    exit_code: ClassVar[int] = 67

    def __init__(self, what: str) -> None:
        super().__init__(f"no customer with {what}; a customer is added by first contact or by an operator")


class UnknownTariff(BusinessError):
    """The price list has no such tariff; the text names those it has."""

    def __init__(self, tariff: str, known: Iterable[str]) -> None:
        names = sorted(known)
        meant = nearest(tariff, names)
        hint = f"; did you mean {meant!r}?" if meant else "."
        super().__init__(f"no tariff is called {tariff!r}{hint} The price list has {', '.join(names) or 'no tariffs'}.")


class UnknownPeriod(BusinessError):
    """The tariff is not sold for this number of days; the text names the periods that are."""

    def __init__(self, tariff: str, days: int, known: Iterable[int]) -> None:
        periods = ", ".join(f"{period} d" for period in sorted(known))
        super().__init__(f"tariff {tariff!r} is not sold for {days} days. It is sold for {periods}.")


class UnknownOrder(BusinessError):
    """There is no order with this number."""

    def __init__(self, order_id: int) -> None:
        super().__init__(f"there is no order {order_id}")


class UnknownNode(BusinessError):
    """No VPN node is registered under this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no VPN node {name!r} is registered in the database; it is registered when its actor starts")


class InsufficientFunds(BusinessError):
    """The balance does not cover the amount; nothing was debited."""


class PriceChanged(BusinessError):
    """The price is another one than the customer saw, and so agreed to; nothing was debited. The text names both."""

    def __init__(self, what: str, seen: object, price: object) -> None:
        super().__init__(
            f"{what} costs {price}, not {seen} as the customer saw it; nothing was debited: show the price and ask again"
        )


class OrderConflict(BusinessError):
    """The idempotency key already stands for a different order; nothing was changed."""


class ChargeConflict(BusinessError):
    """The charge is already recorded with other facts. A provider repeats a charge, it never changes one: find out."""


class LedgerConflict(BusinessError):
    """The idempotency key already stands for a different journal; nothing was posted."""


class ClockRefused(BusinessError):
    """The clock moves only in a database that was created as demo or test."""


class LeaseError(AtlasError):
    """Base of all errors about a lease: it was not given, or it was taken away, or it was misused."""


class LeaseTimeout(LeaseError):
    """No connection became free within the acquire deadline. Nothing was sent to the database: safe to repeat."""


class LeaseShed(LeaseTimeout):
    """The queue is too long for this request to be served in time, so it is refused at once. Safe to repeat later."""


class PoolDown(LeaseError):
    """The database cannot be reached; the text names the last cause and since when. Nothing was sent."""


class PoolCrashed(LeaseError):
    """The pool's actor ended while the request waited. Nothing was sent: safe to repeat."""


class LeaseExpired(LeaseError):
    """The hold deadline passed; the connection was taken away and its transaction does not commit."""

    in_part: bool = False
    """Whether statements of an open lease, which commit by themselves, have happened or may have: the text says which."""


class LeaseRevoked(LeaseError):
    """The pool took the connection away: its holder died or overran, or the pool was replaced."""

    in_part: bool = False
    """As of LeaseExpired."""


class LeaseMisused(LeaseError):
    """The connection was used by a task, or at a time, for which it was not leased."""


class ForeignAwait(LeaseMisused):
    """A function that was given a connection awaited something other than this connection."""


class NestedLease(LeaseMisused):
    """A connection was asked for while one is held: with every connection held that way, none would ever come free."""


class TransactionLost(LeaseError):
    """The transaction was rolled back although its function returned: it had swallowed an error or a cancellation."""


class ConnectionLost(LeaseError):
    """The connection broke while it was in use and before COMMIT was sent: nothing was committed, safe to repeat."""


class DatabaseBusy(LeaseError):
    """The server broke the transaction off for now: a lock or a statement took too long, or two transactions were in each
    other's way. Nothing was committed: safe to repeat after a moment."""

    exit_code: ClassVar[int] = 75


class DatabaseUnable(LeaseError):
    """The server answers and cannot do this: it takes no writes, or has no disk, memory or connections left. Nothing was
    committed; the same again succeeds once the server is well."""

    exit_code: ClassVar[int] = 69


class AmbiguousCommit(LeaseError):
    """COMMIT, or a statement that commits by itself, was sent and no answer came: it may or may not have happened.

    Resolve it by the idempotency key.
    """


class DatabaseUnusable(AtlasError):
    """A configuration that no waiting cures: wrong credentials, no such database, a server that is too old."""

    exit_code: ClassVar[int] = 78


class DatabaseUnreachable(AtlasError):
    """No server answers at the address, or it refuses connections for now."""

    exit_code: ClassVar[int] = 69
