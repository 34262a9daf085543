"""A contact adds a customer once and makes a known one reachable again."""

import pytest
import trio

from db.customers import add_customer, find_customer, touch_contact_unless_busy
from db.errors import BusinessError, UnknownCustomer
from db.work.claims import enlist_claimer
from db.work.outbox import OutboxMessage, add_message, claim_messages, mark_undeliverable, postpone_message
from tests.db.database import Database


async def test_contacts_at_once_add_one_customer_with_one_set_of_purses(database: Database) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(database.add_customer, 1001)
    assert await database.count("customers") == 1
    kinds = await database.fetchval("SELECT array_agg(kind ORDER BY kind) FROM accounts WHERE customer_id IS NOT NULL")
    assert kinds == ["credit", "debt", "earned", "paid"]


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


async def claimed(database: Database) -> OutboxMessage:
    """A message to a customer, on its way."""
    customer = await database.add_customer()
    await database.run(add_message, "key_active", "key:1", customer_id=customer.id)
    owner = await database.run(enlist_claimer, "main/notifications")
    [message] = await database.run(claim_messages, owner, 10, 60.0)
    return message


async def is_reachable(database: Database) -> bool:
    return (await database.run(find_customer, 1001)).is_reachable


async def test_a_blocked_customer_is_unreachable_until_the_next_contact(database: Database) -> None:
    message = await claimed(database)
    assert await is_reachable(database)
    assert await database.run(mark_undeliverable, message, "blocked", is_unreachable=True)
    assert not await is_reachable(database)
    assert await database.run(touch_contact_unless_busy, 1001)
    assert await is_reachable(database)


async def test_who_wrote_after_the_message_had_left_stays_reachable(database: Database) -> None:
    message = await claimed(database)
    await database.run(touch_contact_unless_busy, 1001)
    assert await database.run(mark_undeliverable, message, "blocked", is_unreachable=True)
    assert await is_reachable(database)


async def test_coming_back_as_a_customer_is_a_contact_too(database: Database) -> None:
    message = await claimed(database)
    await database.run(mark_undeliverable, message, "blocked", is_unreachable=True)
    await database.add_customer()
    assert await is_reachable(database)


async def test_whoever_lost_the_claim_says_nothing_about_the_customer(database: Database) -> None:
    message = await claimed(database)
    successor = await database.run(enlist_claimer, "main/notifications")
    await database.run(claim_messages, successor, 10, 60.0)
    assert not await database.run(mark_undeliverable, message, "blocked", is_unreachable=True)
    assert not await database.run(postpone_message, message, 5.0)
    assert await is_reachable(database)


async def test_a_message_that_cannot_be_told_says_nothing_about_the_customer(database: Database) -> None:
    message = await claimed(database)
    assert await database.run(mark_undeliverable, message, "no such kind")
    assert await is_reachable(database)


async def test_a_stranger_is_nobody(database: Database) -> None:
    assert not await database.run(touch_contact_unless_busy, 424242)


async def test_a_postponed_message_costs_no_attempt_and_waits(database: Database) -> None:
    message = await claimed(database)
    assert await database.run(postpone_message, message, 30.0)
    owner = await database.run(enlist_claimer, "main/notifications")
    assert await database.run(claim_messages, owner, 10, 60.0) == []
    await database.move_clock(seconds=31)
    [again] = await database.run(claim_messages, owner, 10, 60.0)
    assert again.attempts == 0


async def test_a_contact_in_passing_waits_for_nobody(database: Database) -> None:
    message = await claimed(database)
    await database.run(mark_undeliverable, message, "blocked", is_unreachable=True)
    async with database.connect() as other:
        await other.execute("BEGIN")
        await other.execute("SELECT FROM customers FOR UPDATE")
        with trio.fail_after(10):
            assert await database.run(touch_contact_unless_busy, 1001)
        await other.execute("ROLLBACK")
    assert not await is_reachable(database)
    assert await database.run(touch_contact_unless_busy, 1001)
    assert await is_reachable(database)
    assert not await database.run(touch_contact_unless_busy, 999)
