"""The worker that reminds: it looks at once when it starts, page by page, and a death in between repeats nothing."""

from __future__ import annotations

from datetime import timedelta

import trio
from trio.testing import wait_all_tasks_blocked

from actors.notices.reminders import Reminders
from actors.pool.settings import PoolSettings
from db.billing.purchases import record_manual_purchase
from db.customers import add_customer
from db.money import Money
from db.schema.demo_clock import set_clock_offset
from db.tx import Tx
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import PoolHarness, pool_harness

SMALL = PoolSettings(size=3, reserved=1)
CUSTOMERS = 7


async def customers(tx: Tx) -> None:
    for telegram_id in range(1, CUSTOMERS + 1):
        await add_customer(tx, telegram_id)
        await record_manual_purchase(tx, telegram_id, "basic", 30, "manual", f"c-{telegram_id}", Money(14900))


async def queued(tx: Tx) -> int:
    count: int = await tx.fetchval("SELECT count(*) FROM outbox WHERE kind LIKE 'reminder%'")
    return count


async def until_queued(harness: PoolHarness) -> None:
    with trio.fail_after(15):
        while await harness.pool.run("look", queued) < CUSTOMERS:
            await wait_all_tasks_blocked(0.01)


async def test_due_reminders_are_queued_page_by_page_at_the_start(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("customers", customers)
        await harness.pool.run("clock", set_clock_offset, timedelta(days=28))
        await harness.system.start(Reminders(interval=2700.0, page_size=3), name="reminders")
        await until_queued(harness)
        assert await harness.pool.run("look", queued) == CUSTOMERS


async def test_killed_between_two_pages_it_goes_on_and_repeats_none(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("customers", customers)
        await harness.pool.run("clock", set_clock_offset, timedelta(days=28))
        harness.system.services.failpoints.arm("reminders", "queued")
        worker = await harness.system.start(
            Reminders(interval=2700.0, page_size=3), name="reminders", on_crash=OnCrash.RESTART
        )
        await until_queued(harness)
        assert worker.incarnation == 2
        assert await harness.pool.run("look", queued) == CUSTOMERS
