"""The worker that renews: one customer's trouble is that customer's, and a death in between costs nobody money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.auto_renewal import AutoRenewal
from actors.pool_settings import PoolSettings
from actors.renewal_events import RenewalFailed, RenewalLacksFunds, Renewed
from db.clock import set_clock_offset
from db.customers import add_customer
from db.money import Money
from db.orders import open_topup
from db.purchases import FinalizePurchase, finalize_purchase, record_manual_purchase
from db.renewals import set_auto_renew
from db.tx import Tx
from db.verify import verify
from runtime.message import WakeUp
from runtime.ref import Ref
from runtime.testing import OnCrash
from tests.actors.pool_house import PoolHouse, pool_house

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
    return [found.name for found in await verify(tx) if not found.holds and not found.at_rest]


@asynccontextmanager
async def house_of(dsn: str, funds: dict[int, int]) -> AsyncIterator[PoolHouse]:
    async with pool_house(dsn, SMALL, wakes=("auto_renewal",)) as house:
        await house.pool.run("subscribers", subscribers, funds)
        await house.pool.run("clock", set_clock_offset, IN_THE_WINDOW)
        yield house
        assert await house.pool.run("verify", broken) == []


async def start(house: PoolHouse, name: str = "auto_renewal", **arguments: int) -> Ref:
    worker = AutoRenewal(interval=600.0, **arguments)  # type: ignore[arg-type]  # whole numbers where tests need any
    return await house.system.start(worker, name=name, on_crash=OnCrash.RESTART)


async def until_renewed(house: PoolHouse, count: int) -> None:
    with trio.fail_after(15):
        while sum(isinstance(event, Renewed) for event in house.events) < count:
            await house._next_event()


async def test_what_is_due_is_renewed_at_the_start_page_by_page(database_dsn: str) -> None:
    async with house_of(database_dsn, dict.fromkeys(range(1, 8), PRICE)) as house:
        await start(house, page_size=3)
        await until_renewed(house, 7)
        assert await house.pool.run("look", renewals) == list(range(1, 8))


async def test_a_top_up_wakes_the_worker_and_the_renewal_succeeds(database_dsn: str) -> None:
    async with house_of(database_dsn, {1: 0}) as house:
        await start(house)
        lacking = await house.until_event(RenewalLacksFunds)
        assert "149.00" in lacking.line()
        await house.pool.run("top up", top_up, 1, PRICE)
        await until_renewed(house, 1)


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

    async with house_of(database_dsn, dict.fromkeys((1, 2, 3), PRICE)) as house:
        await house.pool.run("break", break_first)
        await start(house)
        await until_renewed(house, 2)
        failed = await house.until_event(RenewalFailed)
        assert (failed.subscription, failed.failures, failed.is_final) == (1, 1, False)
        assert "a defect of ours" in failed.line()
        assert await house.pool.run("look", renewals) == [2, 3]


@pytest.mark.parametrize("point", ["claimed", "renewed"])
async def test_killed_between_two_steps_it_goes_on_and_charges_nobody_twice(database_dsn: str, point: str) -> None:
    async with house_of(database_dsn, dict.fromkeys((1, 2, 3), 2 * PRICE)) as house:
        house.system.services.failpoints.arm("auto_renewal", point)
        worker = await start(house)
        with trio.fail_after(15):
            await house.system.up(worker, 2)
            while len(await house.pool.run("look", renewals)) < 3:
                await house._next_event()
        assert await house.pool.run("look", renewals) == [1, 2, 3]
        worker.tell(WakeUp())


async def test_two_workers_at_once_renew_each_customer_once(database_dsn: str) -> None:
    async with house_of(database_dsn, dict.fromkeys(range(1, 9), 2 * PRICE)) as house:
        async with trio.open_nursery() as nursery:
            for name in ("auto_renewal", "another"):
                nursery.start_soon(lambda name: start(house, name, page_size=2), name)
        await until_renewed(house, 8)
        assert await house.pool.run("look", renewals) == list(range(1, 9))


async def test_without_a_database_it_waits_and_does_not_crash() -> None:
    async with pool_house("postgresql://atlas@127.0.0.1:1/atlas", SMALL, wait=False) as house:
        worker = await house.system.start(AutoRenewal(interval=600.0), name="auto_renewal")
        with trio.fail_after(10):
            while "no database" not in str(worker.address.inspect()["actor"]):
                await wait_all_tasks_blocked(0.01)
        assert worker.incarnation == 1
