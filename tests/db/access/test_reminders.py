"""Each reminder once, at its time or soon after, and none that is stale."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db.access.reminders import Reminded, queue_reminders
from db.access.subscriptions import expire_page, mark_revoked
from db.billing.grants import grant_access, grant_trial
from db.work.notices import payload_problems
from tests.db.database import Database


async def reminders(database: Database) -> list[str]:
    """What was queued so far, in order, without its prefix."""
    await database.run(queue_reminders)
    async with database.connect() as connection:
        rows = await connection.fetch(
            "SELECT kind, payload->>'expires_at' AS ends, payload->>'tariff' AS tariff FROM outbox "
            "WHERE kind LIKE 'reminder%' ORDER BY id"
        )
    for row in rows:
        assert payload_problems(row["kind"], {"expires_at": row["ends"], "tariff": row["tariff"]}) == []
    return [row["kind"].removeprefix("reminder_") for row in rows]


async def at(database: Database, hours: float) -> list[str]:
    await database.move_clock(hours=hours)
    return await reminders(database)


async def test_a_paid_period_is_reminded_of_three_days_one_day_and_three_hours_before_end(
    database: Database,
) -> None:
    await database.add_customer()
    await database.buy()
    month = 30 * 24
    assert await at(database, month - 72.1) == []
    assert await at(database, month - 71.9) == ["paid_3d"]
    assert await at(database, month - 24.1) == ["paid_3d"]
    assert await at(database, month - 23.9) == ["paid_3d", "paid_24h"]
    assert await at(database, month - 2.9) == ["paid_3d", "paid_24h", "paid_3h"]
    assert await at(database, month + 1) == ["paid_3d", "paid_24h", "paid_3h"]


@pytest.mark.parametrize(("days", "before", "kind"), [(1, 6, "grant_6h"), (7, 24, "grant_24h"), (30, 72, "paid_3d")])
async def test_a_grant_is_reminded_of_according_to_its_length(
    database: Database, days: int, before: int, kind: str
) -> None:
    await database.add_customer()
    period = timedelta(days=days)
    await database.run(grant_access, 1001, "basic", period, idempotency_key="g", actor="test")
    assert await at(database, days * 24 - before - 0.1) == []
    assert await at(database, days * 24 - before + 0.1) == [kind]


async def test_a_trial_is_asked_about_after_6_and_48_hours_and_reminded_6_before_its_end(
    database: Database,
) -> None:
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    assert await at(database, 5.9) == []
    assert await at(database, 6.1) == ["trial_6h_in"]
    assert await at(database, 48.1) == ["trial_6h_in", "trial_48h_in"]
    assert await at(database, 66.1) == ["trial_6h_in", "trial_48h_in", "trial_6h"]


async def test_a_trial_that_is_prolonged_is_not_asked_about_again(database: Database) -> None:
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    assert await at(database, 50) == ["trial_48h_in"]
    day = timedelta(days=1)
    await database.run(grant_access, 1001, "basic", day, idempotency_key="g", actor="test")
    assert await at(database, 60) == ["trial_48h_in"]
    assert await at(database, 90.1) == ["trial_48h_in", "trial_6h"]


async def test_after_a_downtime_only_the_latest_relevant_one_is_sent(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    assert await at(database, 30 * 24 - 10) == ["paid_24h"]
    assert await at(database, 30 * 24 - 1) == ["paid_24h", "paid_3h"]


async def test_a_downtime_across_the_end_sends_nothing(database: Database) -> None:
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    assert await at(database, 72.5) == []
    await database.run(expire_page)
    assert await reminders(database) == []
    assert await database.fetchval("SELECT due_at FROM reminder_schedule") is None


async def test_an_end_that_moved_has_reminders_of_its_own(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    assert await at(database, 30 * 24 - 1) == ["paid_3h"]
    await database.buy(charge_id="charge-2")
    assert await reminders(database) == ["paid_3h"]
    assert await at(database, 60 * 24 - 1) == ["paid_3h", "paid_3h"]


async def test_who_buys_between_two_pages_is_not_reminded_of_the_former_end(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await database.move_clock(hours=30 * 24 - 10)
    await database.buy(charge_id="charge-2")
    assert await reminders(database) == []


async def test_the_revoked_are_not_reminded(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await database.run(mark_revoked, 1001, actor="test")
    assert await at(database, 30 * 24 - 10) == []


async def test_two_who_look_at_once_queue_each_reminder_once(database: Database) -> None:
    for number in range(1, 7):
        await database.add_customer(number)
        await database.buy(number, charge_id=f"charge-{number}")
    await database.move_clock(hours=30 * 24 - 10)
    async with database.connect() as one, database.connect() as other:
        await one.execute("BEGIN")
        first = await queue_reminders(one, 4)
        second = await queue_reminders(other, 4)  # does not wait for the other's rows
        await one.execute("COMMIT")
    assert (first, second) == (Reminded(4, 4), Reminded(2, 2))
    assert len(await reminders(database)) == 6
