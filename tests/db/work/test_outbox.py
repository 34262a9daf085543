"""A message is one row per fact; it is claimed, sent outside any transaction, and settled by whoever still holds it."""

from uuid import uuid4

import pytest

from db.work.claims import Claimer, enlist_claimer
from db.work.outbox import add_message, claim_messages, mark_sent, mark_undeliverable, retry_message, spread_messages
from tests.db.database import Database


async def prepare(database: Database) -> Claimer:
    customer = await database.add_customer()
    await database.run(add_message, "hello", "one", customer_id=customer.id, payload={"amount": 1})
    return await database.run(enlist_claimer, "main/notifications")


async def test_telling_a_fact_twice_is_one_message(database: Database) -> None:
    owner = await prepare(database)
    await database.run(add_message, "alert", "disk")
    await database.run(add_message, "alert", "disk")
    messages = await database.run(claim_messages, owner, 10, 60.0)
    assert [(message.telegram_id, message.kind, dict(message.payload)) for message in messages] == [
        (1001, "hello", {"amount": 1}),
        (None, "alert", {}),
    ]


async def test_a_sent_message_is_not_claimed_again(database: Database) -> None:
    owner = await prepare(database)
    [message] = await database.run(claim_messages, owner, 10, 60.0)
    assert await database.run(mark_sent, message)
    await database.move_clock(days=1)
    assert await database.run(claim_messages, owner, 10, 60.0) == []


async def test_a_message_is_retried_after_the_delay_that_the_provider_asked_for(database: Database) -> None:
    owner = await prepare(database)
    [message] = await database.run(claim_messages, owner, 10, 60.0)
    assert await database.run(retry_message, message, 30.0, "429")
    assert await database.run(claim_messages, owner, 10, 60.0) == []
    await database.move_clock(seconds=31)
    [again] = await database.run(claim_messages, owner, 10, 60.0)
    assert again.attempts == 1
    assert await database.run(mark_undeliverable, again, "blocked")


async def test_a_lost_claim_settles_nothing(database: Database) -> None:
    owner = await prepare(database)
    [message] = await database.run(claim_messages, owner, 10, 60.0)
    successor = await database.run(enlist_claimer, owner.name)
    [taken] = await database.run(claim_messages, successor, 10, 60.0)
    assert not await database.run(mark_sent, message)
    assert await database.run(mark_sent, taken)


async def test_what_waits_for_one_receiver_comes_due_one_by_one_and_nobody_elses_does(database: Database) -> None:
    owner = await prepare(database)
    for number in range(6):
        await database.run(add_message, "alert", f"disk:{number}")
    mine, first, *surplus = await database.run(claim_messages, owner, 4, 60.0)
    assert await database.run(retry_message, first, 30.0, "502")  # waits for its own time
    other = await database.run(enlist_claimer, "elsewhere/notifications")
    [taken] = await database.run(claim_messages, other, 1, 60.0)
    assert await database.run(spread_messages, surplus, 10.0) == 4
    due = await database.fetchval(
        """
        SELECT string_agg(subject || ' ' || round(extract(epoch FROM next_attempt_at - atlas_now())), ', ' ORDER BY id)
        FROM outbox WHERE customer_id IS NULL AND claimed_by IS NULL
        """
    )
    assert due == "disk:0 30, disk:1 10, disk:2 20, disk:4 30, disk:5 40"
    assert await database.run(mark_sent, taken)
    assert await database.run(mark_sent, mine)


async def test_a_uuid_does_not_go_into_a_message(database: Database) -> None:
    with pytest.raises(ValueError, match="full UUID"):
        await database.run(add_message, "hello", "one", payload={"key": uuid4()})
