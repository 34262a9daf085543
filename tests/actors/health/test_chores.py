"""What has served its time goes, what is needed stays, and nobody writes without the singleton."""

from __future__ import annotations

from datetime import timedelta

import pytest

from actors.health.chores import Chore, apply_rules, chores, do_page
from db.billing.orders import open_order
from db.settings import ReferralSettings
from db.work.leader_leases import Epoch, LostEpoch, acquire_epoch, release_epoch
from db.work.nonces import use_nonce
from db.work.outbox import add_message
from tests.db.database import SEAL, Database

MONTH = timedelta(days=30)


async def hold(database: Database, holder: str = "me") -> Epoch:
    return await database.run(acquire_epoch, "housekeeping", holder, 3600.0)


def chore(name: str) -> Chore:
    return next(chore for chore in chores(MONTH, lambda: SEAL) if chore.name == name)


async def test_orders_expire_after_their_time_page_by_page_and_stay_payable_to_the_balance(database: Database) -> None:
    await database.add_customer()
    for number in range(5):
        await database.run(open_order, 1001, "basic", 30, idempotency_key=f"o{number}")
    held = await hold(database)
    assert await database.run(do_page, held, chore("orders_expired"), 100) == 0
    await database.move_clock(minutes=31)
    assert [await database.run(do_page, held, chore("orders_expired"), 2) for _ in range(4)] == [2, 2, 1, 0]
    assert await database.count("orders WHERE state = 'expired'") == 5


async def test_messages_that_were_settled_long_ago_are_taken_away_and_no_others(database: Database) -> None:
    for number in range(3):
        await database.run(add_message, "test", f"old:{number}")
    await database.run(add_message, "test", "waits")
    async with database.connect() as connection:
        await connection.execute(
            "UPDATE outbox SET state = 'sent', settled_at = atlas_now() WHERE subject LIKE 'old:%'"
        )
    held = await hold(database)
    await database.move_clock(days=29)
    assert await database.run(do_page, held, chore("messages_pruned"), 100) == 0
    await database.move_clock(days=31)
    assert [await database.run(do_page, held, chore("messages_pruned"), 2) for _ in range(2)] == [2, 1]
    assert await database.fetchval("SELECT subject FROM outbox") == "waits"


async def test_nonces_go_when_their_signatures_are_long_refused(database: Database) -> None:
    assert await database.run(use_nonce, "k", "n")
    held = await hold(database)
    await database.move_clock(minutes=59)
    assert await database.run(do_page, held, chore("nonces_pruned"), 100) == 0
    await database.move_clock(minutes=61)
    assert await database.run(do_page, held, chore("nonces_pruned"), 100) == 1


async def test_the_tariff_that_runs_is_named_once_the_better_one_has_run_out(database: Database) -> None:
    await database.add_customer()
    await database.buy(tariff="basic")
    await database.buy(tariff="plus", charge_id="charge-2")
    assert await database.fetchval("SELECT tariff FROM subscriptions") == "plus"
    await database.move_clock(days=31)
    assert await database.run(do_page, await hold(database), chore("tariffs_followed"), 100) == 1
    assert await database.fetchval("SELECT tariff FROM subscriptions") == "basic"


async def test_who_has_lost_the_singleton_writes_nothing(database: Database) -> None:
    await database.add_customer()
    await database.run(open_order, 1001, "basic", 30, idempotency_key="o")
    lost = await hold(database)
    await database.run(release_epoch, lost)
    assert (await hold(database, "another")).is_mine
    await database.move_clock(minutes=31)
    with pytest.raises(LostEpoch):
        await database.run(do_page, lost, chore("orders_expired"), 100)
    assert await database.count("orders WHERE state = 'pending'") == 1


def test_messages_are_kept_longer_than_the_invariants_look_back() -> None:
    with pytest.raises(ValueError, match="8 days at least"):
        chores(timedelta(days=7), lambda: SEAL)


async def test_the_hold_of_rewards_is_written_where_every_program_reads_it_once_it_changes(database: Database) -> None:
    epoch = await hold(database)
    assert await database.run(apply_rules, epoch, ReferralSettings()) is False
    assert await database.run(apply_rules, epoch, ReferralSettings(hold_days=3)) is True
    assert await database.run(apply_rules, epoch, ReferralSettings(hold_days=3)) is False
    assert await database.fetchval("SELECT referral_hold()") == timedelta(days=3)
    await database.run(release_epoch, epoch)
    await hold(database, "another")
    with pytest.raises(LostEpoch):
        await database.run(apply_rules, epoch, ReferralSettings(hold_days=4))
    assert await database.fetchval("SELECT referral_hold()") == timedelta(days=3)
