"""A contact adds a customer once and makes a known one reachable again."""

import pytest
import trio

from db.customers import add_customer, find_customer
from db.errors import BusinessError, UnknownCustomer
from tests.db.database import Database


async def test_contacts_at_once_add_one_customer_with_one_account(database: Database) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(database.add_customer, 1001)
    assert await database.count("customers") == 1
    assert await database.fetchval("SELECT count(*) FROM accounts WHERE kind = 'customer'") == 1


async def test_any_contact_makes_a_customer_reachable_again(database: Database) -> None:
    await database.add_customer()
    async with database.connect() as connection:
        await connection.execute("UPDATE customers SET is_reachable = false")
    assert (await database.run(add_customer, 1001)).is_reachable


async def test_being_unreachable_does_not_gate_money(database: Database) -> None:
    await database.add_customer()
    async with database.connect() as connection:
        await connection.execute("UPDATE customers SET is_reachable = false")
    assert (await database.buy()).key_id is not None


async def test_who_is_unknown_is_named_by_telegram_id(database: Database) -> None:
    with pytest.raises(UnknownCustomer, match="Telegram id 77"):
        await database.run(find_customer, 77)
    with pytest.raises(BusinessError, match="positive"):
        await database.run(add_customer, -5)
