"""The worker that renews: one customer's trouble is that customer's, and a death in between costs nobody money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.payments.auto_renewal import AutoRenewal, RenewalFailed, RenewalLacksFunds, Renewed
from actors.pool.settings import PoolSettings
from db.billing.invariants import check_invariants
from db.billing.orders import open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase, record_manual_purchase
from db.billing.renewals import set_auto_renew
from db.customers import add_customer
from db.money import Money
from db.schema.demo_clock import set_clock_offset
from db.tx import Tx
from runtime import Ref, WakeUp
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import PoolHarness, pool_harness

SMALL = PoolSettings(size=3, reserved=1)
PRICE = 14900
IN_THE_WINDOW = timedelta(days=29, hours=19)


async def subscribers(tx: Tx, funds: dict[int, int]) -> None:
    """One with automatic renewal for each Telegram id, and so much money on the balance."""
    for telegram_id, amount in funds.items():
        await add_customer(tx, telegram_id)
        await record_manual_purchase(tx, telegram_id, "basic", 30, "manual", f"c-{telegram_id}", Money(PRICE))
        if amount:
            await top_up(tx, telegram_id, amount)
        await set_auto_renew(tx, telegram_id, True, actor="test")


async def top_up(tx: Tx, telegram_id: int, amount: int) -> None:
    key = f"t-{telegram_id}"
    order = await open_topup(tx, telegram_id, Money(amount), idempotency_key=key)
    await finalize_purchase(tx, FinalizePurchase("test", key, order.quote.amount, order.id))


async def renewals(tx: Tx) -> list[int]:
    rows = await tx.fetch(
        "SELECT c.telegram_id FROM renewals r JOIN subscriptions s ON s.id = r.subscription_id "
        "JOIN customers c ON c.id = s.customer_id ORDER BY c.telegram_id"
    )
    return [row["telegram_id"] for row in rows]


async def broken(tx: Tx) -> list[str]:
    return [found.name for found in await check_invariants(tx) if not found.holds and not found.at_rest]


@asynccontextmanager
async def harness_of(dsn: str, funds: dict[int, int]) -> AsyncIterator[PoolHarness]:
    async with pool_harness(dsn, SMALL, wakes=("auto_renewal",)) as harness:
        await harness.pool.run("subscribers", subscribers, funds)
        await harness.pool.run("clock", set_clock_offset, IN_THE_WINDOW)
        yield harness
        assert await harness.pool.run("verify", broken) == []


async def start(harness: PoolHarness, name: str = "auto_renewal", **arguments: int) -> Ref:
    worker = AutoRenewal(interval=600.0, **arguments)  # type: ignore[arg-type]  # whole numbers where tests need any
    return await harness.system.start(worker, name=name, on_crash=OnCrash.RESTART)


async def until_renewed(harness: PoolHarness, count: int) -> None:
    with trio.fail_after(15):
        while sum(isinstance(event, Renewed) for event in harness.events) < count:
            await harness._next_event()


async def test_what_is_due_is_renewed_at_the_start_page_by_page(database_dsn: str) -> None:
    async with harness_of(database_dsn, dict.fromkeys(range(1, 8), PRICE)) as harness:
        await start(harness, page_size=3)
        await until_renewed(harness, 7)
        assert await harness.pool.run("look", renewals) == list(range(1, 8))


async def test_a_top_up_wakes_the_worker_and_the_renewal_succeeds(database_dsn: str) -> None:
    async with harness_of(database_dsn, {1: 0}) as harness:
        await start(harness)
        lacking = await harness.until_event(RenewalLacksFunds)
        assert "149.00" in lacking.line()
        await harness.pool.run("top up", top_up, 1, PRICE)
        await until_renewed(harness, 1)


async def test_one_customers_trouble_delays_no_other(database_dsn: str) -> None:
    async def break_first(tx: Tx) -> None:
        await tx.execute(
            """
            CREATE FUNCTION refuse_first() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'a defect of ours'; END$$
            """
        )
        await tx.execute(
            "CREATE TRIGGER refuse_first BEFORE INSERT ON renewals FOR EACH ROW WHEN (NEW.subscription_id = 1) "
            "EXECUTE FUNCTION refuse_first()"
        )

    async with harness_of(database_dsn, dict.fromkeys((1, 2, 3), PRICE)) as harness:
        await harness.pool.run("break", break_first)
        await start(harness)
        await until_renewed(harness, 2)
        failed = await harness.until_event(RenewalFailed)
        assert (failed.subscription, failed.failures, failed.is_final) == (1, 1, False)
        assert "a defect of ours" in failed.line()
        assert await harness.pool.run("look", renewals) == [2, 3]


@pytest.mark.parametrize("point", ["claimed", "renewed"])
async def test_killed_between_two_steps_it_goes_on_and_charges_nobody_twice(database_dsn: str, point: str) -> None:
    async with harness_of(database_dsn, dict.fromkeys((1, 2, 3), 2 * PRICE)) as harness:
        harness.system.services.failpoints.arm("auto_renewal", point)
        worker = await start(harness)
        with trio.fail_after(15):
            await harness.system.up(worker, 2)
            while len(await harness.pool.run("look", renewals)) < 3:
                await harness._next_event()
        assert await harness.pool.run("look", renewals) == [1, 2, 3]
        worker.tell(WakeUp())


async def test_two_workers_at_once_renew_each_customer_once(database_dsn: str) -> None:
    async with harness_of(database_dsn, dict.fromkeys(range(1, 9), 2 * PRICE)) as harness:
        async with trio.open_nursery() as nursery:
            for name in ("auto_renewal", "another"):
                nursery.start_soon(lambda name: start(harness, name, page_size=2), name)
        await until_renewed(harness, 8)
        assert await harness.pool.run("look", renewals) == list(range(1, 9))


async def test_without_a_database_it_waits_and_does_not_crash() -> None:
    async with pool_harness("postgresql://atlas@127.0.0.1:1/atlas", SMALL, wait=False) as harness:
        worker = await harness.system.start(AutoRenewal(interval=600.0), name="auto_renewal")
        with trio.fail_after(10):
            while "no database" not in str(worker.address.inspect()["actor"]):
                await wait_all_tasks_blocked(0.01)
        assert worker.incarnation == 1
