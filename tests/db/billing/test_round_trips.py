"""A hot operation is a handful of statements: each is a round trip during which the customer's row is locked."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from db.billing.adjustments import adjust_balance
from db.billing.balance_purchases import finalize_balance_purchase
from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.money import Money
from db.tx import Tx
from tests.db.database import Connection, Database


class Counting(Connection):
    """Counts statements."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self.count = 0

    async def fetch(self, query: str, /, *args: object) -> Any:
        self.count += 1
        return await super().fetch(query, *args)

    async def fetchrow(self, query: str, /, *args: object) -> Any:
        self.count += 1
        return await super().fetchrow(query, *args)

    async def fetchval(self, query: str, /, *args: object) -> Any:
        self.count += 1
        return await super().fetchval(query, *args)

    async def execute(self, query: str, /, *args: object) -> str:
        self.count += 1
        return await super().execute(query, *args)


def pay(order_id: int, charge_id: str, telegram_id: int) -> Callable[[Tx], Awaitable[object]]:
    return lambda tx: finalize_purchase(tx, FinalizePurchase("test", charge_id, Money(14900), order_id, telegram_id))


def spend(tx: Tx, telegram_id: int) -> Awaitable[object]:
    return finalize_balance_purchase(tx, telegram_id, "basic", 30, seen_price=Money(14900), idempotency_key="spend")


@pytest.mark.parametrize(
    ("what", "statements"),
    [
        ("purchase, with a referrer", 10),
        ("purchase, without one", 8),
        ("replay", 4),
        ("from the balance", 9),
        ("outside money from the balance, with a referrer", 13),
    ],
)
async def test_statements(database: Database, what: str, statements: int) -> None:
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.run(adjust_balance, 2002, Money(50_000), reason="x", actor="o", idempotency_key="x")
    await database.topup(1001)
    friend = await database.run(open_order, 1001, "basic", 30, idempotency_key="o")
    alone = await database.run(open_order, 2002, "basic", 30, idempotency_key="o")
    choices: dict[str, Callable[[Tx], Awaitable[object]]] = {
        "purchase, with a referrer": pay(friend.id, "c1", 1001),
        "purchase, without one": pay(alone.id, "c2", 2002),
        "replay": pay(friend.id, "c0", 1001),
        "from the balance": lambda tx: spend(tx, 2002),
        "outside money from the balance, with a referrer": lambda tx: spend(tx, 1001),
    }
    work = choices[what]
    if what == "replay":
        await database.run(pay(friend.id, "c0", 1001))
    async with database.connect() as plain:
        connection = Counting(plain.raw)
        await plain.execute("BEGIN")
        await work(connection)
        await plain.execute("COMMIT")
    assert connection.count == statements
