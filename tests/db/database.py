"""Plain asyncpg connections for tests of business functions, used from trio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import asyncpg
import attrs
import trio_asyncio

from db.billing.balance_purchases import BalancePurchase, finalize_balance_purchase
from db.billing.invariants import check_invariants
from db.billing.orders import open_order, open_topup
from db.billing.payment_facts import FinalizePurchase, PurchaseOutcome
from db.billing.pricing import quote_plan
from db.billing.purchases import finalize_purchase
from db.billing.referrals import set_hold_days
from db.customers import Customer, add_customer
from db.money import Money
from db.schema.demo_clock import set_clock_offset
from db.tx import Row, Tx
from db.work.sealing import read_seal

SEAL = read_seal("07" * 32, "the tests' key file")
"""What payout destinations are sealed with."""

P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """An asyncpg connection whose methods are awaited from trio; it is a ``Tx``."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        rows: Sequence[Row] = await trio_asyncio.aio_as_trio(self.raw.fetch)(query, *args)
        return rows

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        row: Row | None = await trio_asyncio.aio_as_trio(self.raw.fetchrow)(query, *args)
        return row

    async def fetchval(self, query: str, /, *args: object) -> Any:
        return await trio_asyncio.aio_as_trio(self.raw.fetchval)(query, *args)

    async def execute(self, query: str, /, *args: object) -> str:
        tag: str = await trio_asyncio.aio_as_trio(self.raw.execute)(query, *args)
        return tag

    async def listen(self, channel: str, hear: Callable[[object, int, str, str], None]) -> None:
        """Call ``hear(connection, pid, channel, payload)`` for each notification."""
        await trio_asyncio.aio_as_trio(self.raw.add_listener)(channel, hear)


@attrs.define
class Database:
    """A fresh database with the current schema."""

    dsn: str
    keeps: bool = False
    """Keep connections whose transaction went well for the next one, until `close`: to open one takes longer than most
    transactions here."""
    _idle: list[Connection] = attrs.field(factory=list, init=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """A new connection outside any transaction."""
        connection = await self._open()
        try:
            yield connection
        finally:
            connection.raw.terminate()

    async def run(self, function: Callable[Concatenate[Tx, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a business function in a transaction of its own connection; commit, or roll back if it raises."""
        async with self._lent() as connection:
            await connection.execute("BEGIN")
            result = await function(connection, *args, **kwargs)
            await connection.execute("COMMIT")
            return result

    async def fetchval(self, query: str, *args: object) -> Any:
        """One value, outside any business function."""
        async with self._lent() as connection:
            return await connection.fetchval(query, *args)

    def close(self) -> None:
        """Cut the connections that were kept."""
        while self._idle:
            self._idle.pop().raw.terminate()

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        connection = self._idle.pop() if self._idle else await self._open()
        went_well = False
        try:
            yield connection
            went_well = self.keeps
        finally:
            if went_well:
                self._idle.append(connection)
            else:
                connection.raw.terminate()

    async def _open(self) -> Connection:
        return Connection(await trio_asyncio.aio_as_trio(asyncpg.connect)(self.dsn))

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        number: int = await self.fetchval(f"SELECT count(*) FROM {table}")
        return number

    async def move_clock(self, **offset: float) -> None:
        """Set the database's clock to this far from the real one, e.g. ``days=31``."""
        await self.run(set_clock_offset, timedelta(**offset))

    async def add_customer(self, telegram_id: int = 1001, referrer: int | None = None) -> Customer:
        """A customer with a rouble account."""
        return await self.run(add_customer, telegram_id, referrer_telegram_id=referrer)

    async def buy(
        self, telegram_id: int = 1001, tariff: str = "basic", days: int = 30, *, charge_id: str = "charge-1"
    ) -> PurchaseOutcome:
        """Open an order and pay it exactly and in time."""

        async def purchase(tx: Tx) -> PurchaseOutcome:
            order = await open_order(tx, telegram_id, tariff, days, idempotency_key=charge_id)
            return await finalize_purchase(tx, FinalizePurchase("test", charge_id, order.quote.amount, order.id))

        return await self.run(purchase)

    async def earn(self, telegram_id: int, kopecks: int, *, hold_days: int = 0) -> None:
        """Let a friend whom the customer invited buy a plan that is dear enough for a reward of so many kopecks."""
        friend = 900_000_000 + telegram_id
        await self.add_customer(friend, referrer=telegram_id)
        await self.run(set_hold_days, hold_days)
        async with self._lent() as connection:
            await connection.execute(
                "INSERT INTO prices (tariff, days, amount) VALUES ('plus', 1000, $1) "
                "ON CONFLICT (tariff, days) DO UPDATE SET amount = excluded.amount",
                10 * kopecks,
            )
            number = await connection.fetchval("SELECT count(*) FROM orders")
        await self.buy(friend, "plus", 1000, charge_id=f"friend-{telegram_id}-{number}")

    async def topup(self, telegram_id: int = 1001, kopecks: int = 20_000, *, charge_id: str = "top") -> PurchaseOutcome:
        """Open an order for a top-up and pay it exactly and in time."""
        order = await self.run(open_topup, telegram_id, Money(kopecks), idempotency_key=charge_id)
        return await self.run(finalize_purchase, FinalizePurchase("test", charge_id, Money(kopecks), order.id))

    async def buy_from_balance(
        self, telegram_id: int = 1001, tariff: str = "basic", days: int = 30, *, key: str = "b"
    ) -> BalancePurchase:
        """Buy a plan from the balance at its price."""

        async def purchase(tx: Tx) -> BalancePurchase:
            price = (await quote_plan(tx, telegram_id, tariff, days)).price
            return await finalize_balance_purchase(tx, telegram_id, tariff, days, seen_price=price, idempotency_key=key)

        return await self.run(purchase)

    async def broken_invariants(self, *, at_rest: bool = False) -> list[str]:
        """What the money views list; those that hold only at rest are looked at on demand."""
        found = []
        for invariant in await self.run(check_invariants):
            if at_rest or not invariant.at_rest:
                found += [f"{invariant.name}: {subject} {problem}" for subject, problem in invariant.sample]
        return found
