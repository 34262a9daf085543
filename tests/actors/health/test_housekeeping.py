"""A violation is an alarm at once, work in progress is none."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.conditions import ConditionBegan, ConditionEnded
from actors.health.housekeeping import VIOLATIONS, Housekeeping, ViolationTracker, in_trouble
from actors.pool.settings import PoolSettings
from db.billing.invariants import Invariant
from db.billing.orders import open_order
from db.customers import add_customer
from db.schema.demo_clock import set_clock_offset
from db.tx import Tx
from db.work.leader_leases import Epoch, acquire_epoch
from runtime import Ref, WakeUp
from runtime.testing import OnCrash
from tests.actors.pool_fixtures import PoolHarness, pool_harness


def look(at_rest: bool, *subjects: str, more: int = 0) -> Invariant:
    return Invariant("money_test", at_rest, len(subjects) + more, tuple((subject, "is wrong") for subject in subjects))


def test_a_view_that_must_hold_at_every_commit_is_in_trouble_at_once_and_says_what() -> None:
    watch = ViolationTracker(patience=0.0)
    assert in_trouble([watch.judge(look(False), 0.0)]) == []
    found = watch.judge(look(False, "order:1", "order:2"), 0.0)
    assert "2 violations, such as order:1: is wrong" in found.trouble
    assert "atlas verify" in found.trouble
    assert VIOLATIONS.labels("money_test").value == 2
    assert watch.judge(look(False), 0.0).trouble == ""


def test_a_view_that_holds_at_rest_is_in_trouble_when_the_same_subject_stays() -> None:
    watch = ViolationTracker(patience=0.0)
    assert watch.judge(look(True, "key:1", "key:2"), 0.0).trouble == ""
    assert watch.judge(look(True, "key:3"), 0.0).trouble == "", "others are being worked on now"
    assert "key:3" in watch.judge(look(True, "key:3", "key:4"), 0.0).trouble
    assert watch.judge(look(True), 0.0).trouble == ""


def test_what_stays_is_found_among_any_number_of_others_that_come_and_go() -> None:
    watch = ViolationTracker(patience=900.0)
    troubles = []
    for number in range(4):
        passing = [f"key:{1000 * number + other}" for other in range(500)]
        troubles.append(watch.judge(look(True, *passing, "key:9"), number * 600.0).trouble)
    assert troubles[:2] == ["", ""]
    assert "501 violations, such as key:9: is wrong for 1200 s" in troubles[2]
    assert "for 1800 s" in troubles[3]
    assert watch.judge(look(True), 2400.0).trouble == ""
    assert watch.judge(look(True, "key:9"), 3000.0).trouble == "", "whoever comes back begins anew"


def test_two_looks_that_follow_at_once_are_no_alarm_about_what_holds_at_rest() -> None:
    watch = ViolationTracker(patience=60.0)
    assert watch.judge(look(True, "key:1"), 0.0).trouble == ""
    assert watch.judge(look(True, "key:1"), 5.0).trouble == ""
    assert watch.judge(look(True, "key:1"), 605.0).trouble != ""


def test_more_than_can_be_told_apart_is_trouble_when_it_lasts() -> None:
    watch = ViolationTracker(patience=60.0)
    assert watch.judge(look(True, "key:1", more=9), 0.0).trouble == ""
    assert "more than can be told apart" in watch.judge(look(True, "key:2", more=9), 600.0).trouble


SMALL = PoolSettings(size=3, reserved=1)


async def audited_parts(tx: Tx) -> int:
    number: int = await tx.fetchval("SELECT count(*) FROM audited_parts")
    return number


async def stale_orders(tx: Tx, count: int) -> None:
    await add_customer(tx, 1001)
    for number in range(count):
        await open_order(tx, 1001, "basic", 30, idempotency_key=f"o{number}")


async def pending(tx: Tx) -> int:
    count: int = await tx.fetchval("SELECT count(*) FROM orders WHERE state = 'pending'")
    return count


async def rob(tx: Tx) -> None:
    await tx.execute("UPDATE accounts SET balance = balance + 1 WHERE kind = 'paid'")


async def repay(tx: Tx) -> None:
    await tx.execute("UPDATE accounts SET balance = balance - 1 WHERE kind = 'paid'")


async def start(
    harness: PoolHarness,
    *,
    page_size: int = 100,
    view_seconds: float = 9.0,
    patience: float = 60.0,
    audit_every: float = 3600.0,
    audit_rows: int = 300_000,
) -> Ref:
    worker = Housekeeping(
        interval=600.0,
        budget=60.0,
        page_size=page_size,
        view_seconds=view_seconds,
        patience=patience,
        audit_every=audit_every,
        audit_rows=audit_rows,
    )
    return await harness.system.start(worker, name="housekeeping", on_crash=OnCrash.RESTART)


def said(worker: Ref) -> str:
    return str(worker.address.inspect())


async def until_said(worker: Ref, text: str) -> None:
    with trio.fail_after(20):
        while text not in said(worker):
            await wait_all_tasks_blocked(0.01)


async def until_one(harness: PoolHarness, query: str) -> None:
    """Wait until the query counts one row; more is a failure."""

    async def count(tx: Tx) -> int:
        number: int = await tx.fetchval(query)
        return number

    with trio.fail_after(20):
        while (number := await harness.pool.run("count", count)) == 0:
            await wait_all_tasks_blocked(0.01)
    assert number == 1


async def until_iterations(worker: Ref, count: int) -> None:
    """Wait until the running incarnation has so many iterations behind it."""

    def iterations() -> int:
        own = worker.address.inspect()["actor"]
        assert isinstance(own, dict)
        return int(own["iterations"])

    with trio.fail_after(20):
        while iterations() < count:
            await wait_all_tasks_blocked(0.01)


async def test_what_stays_behind_at_rest_is_a_case_although_others_come_and_go(database_dsn: str) -> None:
    async def view(tx: Tx, number: int) -> None:
        await tx.execute(
            f"""
            CREATE OR REPLACE VIEW money_test AS SELECT 'key:9' AS subject, 'stuck' AS problem
            UNION ALL SELECT 'key:1' || {number} || other, 'on its way' FROM generate_series(1, 20) AS other
            """
        )
        await tx.execute("COMMENT ON VIEW money_test IS 'at rest'")

    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("view", view, 1)
        worker = await start(harness, patience=0.0)
        await until_said(worker, "views are empty")
        await harness.pool.run("view", view, 2)
        worker.tell(WakeUp())
        began = await harness.until_event(ConditionBegan)
        assert "21 violations, such as key:9: stuck" in began.trouble
        await until_one(
            harness, "SELECT count(*) FROM cases WHERE kind = 'money_invariant' AND subject LIKE 'money_test:%'"
        )


async def test_it_keeps_order_at_its_start_and_finds_all_views_empty(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("orders", stale_orders, 5)
        await harness.pool.run("clock", set_clock_offset, timedelta(minutes=31))
        worker = await start(harness, page_size=2)
        await until_said(worker, "views are empty")
        assert await harness.pool.run("look", pending) == 0


async def test_money_that_does_not_add_up_is_an_alarm_until_it_does(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("customer", stale_orders, 0)
        await harness.pool.run("rob", rob)
        worker = await start(harness)
        began = await harness.until_event(ConditionBegan)
        assert began.subject == "money_i03_balances_equal_postings"
        assert "account:" in began.line()
        await until_said(worker, "look at money_i03")
        await until_one(
            harness, "SELECT count(*) FROM cases WHERE kind = 'money_invariant' AND subject LIKE 'money\\_i03%'"
        )
        told = "SELECT count(*) FROM outbox WHERE kind = 'case_opened' AND payload->>'trouble' LIKE '%account:%'"
        await until_one(harness, told)
        await until_iterations(worker, 1)
        worker.tell(WakeUp())
        await until_iterations(worker, 2)
        await until_one(harness, told)
        await harness.pool.run("repay", repay)
        worker.tell(WakeUp())
        ended = await harness.until_event(ConditionEnded)
        assert ended.subject == began.subject


async def test_what_the_auditor_alone_sees_is_an_alarm_and_a_case_until_it_is_put_right(database_dsn: str) -> None:
    async def invent(tx: Tx) -> None:
        await tx.execute("UPDATE customers SET first_paid_at = atlas_now()")

    async def forget(tx: Tx) -> None:
        await tx.execute("UPDATE customers SET first_paid_at = NULL")

    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("customer", stale_orders, 0)
        worker = await start(harness, audit_every=0.0)
        await until_said(worker, "the auditor finds nothing")
        assert await harness.pool.run("look", audited_parts) > 30
        await harness.pool.run("invent", invent)
        worker.tell(WakeUp())
        began = await harness.until_event(ConditionBegan)
        assert began.subject == "auditor"
        assert "1 findings, such as a friend pays since access was bought" in began.line()
        await until_one(
            harness, "SELECT count(*) FROM cases WHERE kind = 'money_invariant' AND subject LIKE 'auditor:%'"
        )
        await harness.pool.run("forget", forget)
        worker.tell(WakeUp())
        assert (await harness.until_event(ConditionEnded)).subject == "auditor"


async def test_more_rows_than_are_derived_in_the_service_are_compared_only(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("customer", stale_orders, 3)
        worker = await start(harness, audit_rows=1)
        await until_said(worker, "the auditor finds nothing")
        assert await harness.pool.run("look", audited_parts) == 0


async def test_a_view_that_cannot_be_read_in_time_is_an_alarm_and_not_an_empty_view(database_dsn: str) -> None:
    async def slow(tx: Tx) -> None:
        await tx.execute("CREATE VIEW money_slow AS SELECT 'a' AS subject, 'b' AS problem FROM pg_sleep(60)")

    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("slow", slow)
        worker = await start(harness, view_seconds=0.3)
        await until_said(worker, "look at")
        troubles = [event for event in harness.events if isinstance(event, ConditionBegan)]
        assert "could not be checked" in next(event.trouble for event in troubles if event.subject == "money_slow")


async def test_another_process_that_does_it_is_named_and_left_alone(database_dsn: str) -> None:
    async def take(tx: Tx) -> Epoch:
        return await acquire_epoch(tx, "housekeeping", "another process", 3600)

    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("orders", stale_orders, 2)
        await harness.pool.run("clock", set_clock_offset, timedelta(minutes=31))
        await harness.pool.run("take", take)
        worker = await start(harness)
        await until_said(worker, "does it")
        assert await harness.pool.run("look", pending) == 2


@pytest.mark.parametrize("point", ["page done", "chores done", "looked"])
async def test_killed_between_two_steps_it_does_all_of_it_again(database_dsn: str, point: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("orders", stale_orders, 5)
        await harness.pool.run("clock", set_clock_offset, timedelta(minutes=31))
        harness.system.services.failpoints.arm("housekeeping", point)
        worker = await start(harness, page_size=2)
        await until_said(worker, "views are empty")
        assert worker.incarnation == 2
        assert await harness.pool.run("look", pending) == 0


async def test_killed_after_it_has_opened_a_case_it_opens_no_second_one(database_dsn: str) -> None:
    async with pool_harness(database_dsn, SMALL) as harness:
        await harness.pool.run("customer", stale_orders, 0)
        await harness.pool.run("rob", rob)
        harness.system.services.failpoints.arm("housekeeping", "case opened")
        worker = await start(harness, audit_rows=0)  # the auditor would have a case of its own
        with trio.fail_after(20):
            while worker.incarnation < 2:
                await wait_all_tasks_blocked(0.01)
        await until_iterations(worker, 1)
        await until_one(harness, "SELECT count(*) FROM cases")
        await harness.pool.run("repay", repay)
