"""Ends move only by events, from which they can be rebuilt; the tariff that is named is the one that runs."""

from datetime import timedelta

import pytest

from db.access.entitlements import follow_tariffs
from db.access.subscriptions import get_subscription, mark_revoked
from tests.db.database import Database


async def test_an_upgrade_is_stored_and_the_rest_is_kept(database: Database) -> None:
    await database.add_customer()
    first = await database.buy(tariff="basic", charge_id="c1")
    second = await database.buy(tariff="plus", charge_id="c2")
    assert first.expires_at is not None
    assert second.expires_at == first.expires_at + timedelta(days=30)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.tariff == "plus"
    assert await database.fetchval(
        "SELECT b.ends_at - p.ends_at > interval '29 days' FROM entitlement_intervals b, entitlement_intervals p "
        "WHERE b.tariff = 'basic' AND p.tariff = 'plus'"
    )


async def test_a_purchase_after_the_end_starts_now(database: Database) -> None:
    await database.add_customer()
    await database.buy(charge_id="c1")
    await database.move_clock(days=100)
    await database.buy(charge_id="c2")
    assert await database.fetchval("SELECT expires_at > atlas_now() + interval '29 days 23 hours' FROM subscriptions")


async def test_a_purchase_after_a_revocation_starts_now_and_is_active(database: Database) -> None:
    await database.add_customer()
    await database.buy(charge_id="c1")
    await database.run(mark_revoked, 1001, actor="operator")
    await database.buy(charge_id="c2")
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.state, view.is_running) == ("active", True)
    assert await database.fetchval("SELECT expires_at < atlas_now() + interval '30 days 1 second' FROM subscriptions")


async def test_the_end_cannot_be_moved_without_an_event(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    async with database.connect() as connection:
        with pytest.raises(Exception, match="its last entitlement event says"):
            await connection.execute("UPDATE subscriptions SET expires_at = expires_at + interval '1 day'")


async def test_the_ends_can_be_rebuilt_from_the_events(database: Database) -> None:
    for telegram_id in (1, 2, 3):
        await database.add_customer(telegram_id)
        await database.buy(telegram_id, charge_id=f"a{telegram_id}")
        await database.buy(telegram_id, "plus", 90, charge_id=f"b{telegram_id}")
    await database.run(mark_revoked, 2, actor="operator")
    differing = await database.fetchval(
        """
        WITH RECURSIVE rebuilt AS (
            SELECT subscription_id, position, created_at + period AS ends FROM entitlement_events WHERE position = 1
            UNION ALL
            SELECT e.subscription_id, e.position,
                   CASE e.kind WHEN 'grant' THEN greatest(r.ends, e.created_at) + e.period ELSE least(r.ends, e.created_at) END
            FROM rebuilt r JOIN entitlement_events e ON e.subscription_id = r.subscription_id AND e.position = r.position + 1
        )
        SELECT count(*) FROM subscriptions s
        JOIN (SELECT DISTINCT ON (subscription_id) * FROM rebuilt ORDER BY subscription_id, position DESC) r
          ON r.subscription_id = s.id
        WHERE s.expires_at <> r.ends
        """
    )
    assert differing == 0


async def test_the_tariff_follows_when_the_better_one_runs_out_first(database: Database) -> None:
    await database.add_customer()
    await database.buy(tariff="basic", days=30, charge_id="c1")
    await database.buy(tariff="plus", days=30, charge_id="c2")
    assert await database.run(follow_tariffs) == 0
    await database.move_clock(days=30, seconds=1)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.tariff, view.is_running) == ("basic", True), "also before anybody has followed"
    assert await database.run(follow_tariffs) == 1
    assert await database.run(follow_tariffs) == 0
    assert await database.fetchval("SELECT tariff FROM subscriptions") == "basic"
    assert await database.fetchval("SELECT plan_tariff FROM subscriptions") == "plus", "the plan bought last is renewed"


async def test_a_tariff_that_nobody_followed_is_past_its_deadline_after_an_hour(database: Database) -> None:
    await database.add_customer()
    await database.buy(tariff="basic", days=30, charge_id="c1")
    await database.buy(tariff="plus", days=30, charge_id="c2")
    await database.move_clock(days=30, hours=2)
    broken = [line for line in await database.broken_invariants(at_rest=True) if "still called plus" in line]
    assert len(broken) == 1
    await database.run(follow_tariffs)
    assert not any("still called" in line for line in await database.broken_invariants(at_rest=True))
