"""An operator's correction is a journal of its own, made once, with a reason."""

import pytest

from db.billing.adjustments import adjust_balance
from db.billing.ledger import balance
from db.errors import BusinessError, InsufficientFunds, UnknownCustomer
from db.money import Money
from tests.db.database import Database


async def adjust(database: Database, kopecks: int, key: str = "k", reason: str = "a mistake") -> int:
    return await database.run(
        adjust_balance, 1001, Money(kopecks), reason=reason, actor="operator", idempotency_key=key
    )


async def test_it_moves_the_balance_once_and_says_why(database: Database) -> None:
    customer = await database.add_customer()
    first = await adjust(database, 5000)
    assert await adjust(database, 5000) == first
    await adjust(database, -2000, "other")
    assert await database.run(balance, customer.id) == Money(3000)
    assert await database.fetchval("SELECT note FROM journals WHERE id = $1", first) == "a mistake"
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'balance_adjusted'") == 2


async def test_what_makes_no_sense_is_refused(database: Database) -> None:
    await database.add_customer()
    await adjust(database, 5000)
    with pytest.raises(BusinessError, match=r"already stands for another adjustment, of 50\.00 RUB"):
        await adjust(database, 5001)
    with pytest.raises(BusinessError, match="changes nothing"):
        await adjust(database, 0, "zero")
    with pytest.raises(BusinessError, match="says why"):
        await adjust(database, 1, "why", " ")
    with pytest.raises(InsufficientFunds):
        await adjust(database, -5001, "below")
    with pytest.raises(UnknownCustomer):
        await database.run(adjust_balance, 9, Money(1), reason="x", actor="operator", idempotency_key="k9")
