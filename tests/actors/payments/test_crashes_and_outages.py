"""The gateway dies between any two steps, its pool or the database goes away: no payment is lost, none counts twice."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from actors.gateway.gateway import GatewaySettings
from actors.payments.events import EventPostponed, RefundMade
from actors.pool.events import PoolWentDown
from db.billing.provider_refunds import reserve_refund
from runtime import WakeUp
from simulators.delivery import Event
from tests.actors.payments.payment_fixtures import Harness, harness
from tests.actors.payments.test_every_provider import PAY
from tests.actors.payments.test_payment_watcher import look
from tests.postgres_cluster import Cluster

ACTORS = Path(__file__).parents[3] / "actors"
GATEWAY_POINTS = ("stored", "understood", "settled")
WATCHER_POINTS = ("claimed", "understood", "settled", "asked", "looked")
PUT_OFF_POINTS = ("postponed", "questioned", "doubted")


def named_in(*files: str) -> set[str]:
    """The failpoints that these files pass."""
    return {
        point for name in files for point in re.findall(r'context\.failpoint\("([^"]+)"\)', (ACTORS / name).read_text())
    }


def test_every_failpoint_of_the_code_is_in_a_list_here() -> None:
    assert named_in("gateway/gateway.py", "payments/intake.py", "gateway/webhooks.py") == set(GATEWAY_POINTS)
    assert named_in("payments/payment_watcher.py") == {
        "claimed",
        "asked",
        "looked",
        "refunded",
        "read",
        *PUT_OFF_POINTS,
    }
    assert named_in("payments/telegram_updates.py") == {"taken"}
    assert set(WATCHER_POINTS) == {"claimed", "asked", "looked"} | (set(GATEWAY_POINTS) - {"stored"})


async def paid(here: Harness, provider: str = "yookassa") -> Event:
    invoice = await here.invoice(provider, await here.order(provider))
    assert invoice.pay_url
    return PAY[provider](here, invoice.pay_url, 1001)


async def assert_not_taken(here: Harness, provider: str, event: Event) -> None:
    """Deliver to a gateway that dies of it: its server says 500, or nothing any more."""
    with contextlib.suppress(httpx.HTTPError):
        assert (await here.deliver(provider, event)).status_code == 500


@pytest.mark.parametrize("point", GATEWAY_POINTS)
@pytest.mark.parametrize("provider", ["yookassa", "stripe"])
async def test_a_gateway_that_dies_at_any_step_answers_nobody_and_its_provider_repeats(
    database_dsn: str, provider: str, point: str
) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, provider)
        here.system.services.failpoints.arm("gateway", point)
        await assert_not_taken(here, provider, event)
        await here.until_gateway(2)
        assert await here.counts() == ((1, 1, 0) if point == "settled" else (0, 0, 0))
        answer = await here.deliver(provider, event)
        assert answer.json() == {"state": "processed", "result": "entitlement"}
        assert await here.counts() == (1, 1, 0)


@pytest.mark.parametrize("point", GATEWAY_POINTS[:2])
async def test_what_a_dead_gateway_had_stored_is_booked_by_the_watcher_alone(database_dsn: str, point: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here)
        here.system.services.failpoints.arm("gateway", point)
        await assert_not_taken(here, "yookassa", event)
        await here.until_gateway(2)
        await here.move_clock(seconds=11)
        await here.watcher()
        await until_counts(here, (1, 1, 0))


@pytest.mark.parametrize("point", WATCHER_POINTS)
async def test_a_watcher_that_dies_at_any_step_is_followed_by_one_that_finishes(database_dsn: str, point: str) -> None:
    async with harness(database_dsn) as here:
        told = await here.invoice("yookassa", await here.order("yookassa"))
        untold = await here.invoice("yookassa", await here.order("yookassa", key="second"))
        event = here.outside.yookassa.pay(told.invoice_id or "")
        here.outside.yookassa.pay(untold.invoice_id or "")
        here.system.services.failpoints.arm("gateway", "stored")
        await assert_not_taken(here, "yookassa", event)
        here.system.services.failpoints.arm("payment_watcher", point)
        await here.move_clock(seconds=31)
        watcher = await here.watcher()
        with trio.fail_after(15):
            await here.system.up(watcher, 2)
        await until_counts(here, (2, 2, 0))
        assert [found.fired for found in here.system.services.failpoints.report() if found.point == point][-1] == 1
        assert await here.value("SELECT string_agg(DISTINCT state, ',') FROM invoices") == "paid"


@pytest.mark.parametrize("point", PUT_OFF_POINTS)
async def test_a_watcher_that_dies_after_it_postponed_an_invoice_settles_it_when_due(
    database_dsn: str, point: str
) -> None:
    async with harness(database_dsn) as here:
        invoice = await here.invoice("yookassa", await here.order("yookassa"))
        yookassa, number = here.outside.yookassa, invoice.invoice_id or ""
        kept = dict(yookassa.payments)
        if point == "doubted":
            yookassa.payments.clear()
        elif point == "questioned":
            yookassa.pay(number, value="0.00")
        else:
            yookassa.troubles.before.extend([503] * 3)
        here.system.services.failpoints.arm("payment_watcher", point)
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        watcher.tell(WakeUp())
        with trio.fail_after(15):
            await here.system.up(watcher, 2)
        assert [found.fired for found in here.system.services.failpoints.report() if found.point == point] == [1]
        is_put_off = "SELECT state = 'open' AND next_attempt_at > atlas_now() AND claimed_by IS NULL FROM invoices"
        assert await here.value(is_put_off) is True
        if point == "questioned":
            assert await here.counts() == (0, 0, 1)
            return
        yookassa.payments.update(kept)
        yookassa.pay(number)
        await here.move_clock(hours=2)  # the order is over by then: the payment is the customer's balance
        watcher.tell(WakeUp())
        await until_counts(here, (1, 0, 0))


async def until_counts(here: Harness, wanted: tuple[int, int, int]) -> None:
    with trio.fail_after(15):
        while True:
            seen = len(here.events)
            if await here.counts() == wanted:
                return
            if len(here.events) == seen:
                await here.next_event()


async def test_without_its_pool_the_gateway_asks_for_repetition_and_the_rest_works_on(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here)
        pool = here.system.address("pool.gateway").ref
        await here.system.stop(pool)
        answer = await here.deliver("yookassa", event)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        async with httpx.AsyncClient(trust_env=False) as browser:
            assert (await browser.get(f"{here.url}/healthz")).status_code == 503
        assert await here.counts() == (0, 0, 0)  # by pool.main
        assert here.gateway.incarnation == 1
        await here.move_clock(seconds=31)
        await here.watcher()
        await until_counts(here, (1, 1, 0))


async def test_a_delivery_that_takes_too_long_gets_503_and_its_repetition_is_booked(database_dsn: str) -> None:
    async with harness(database_dsn, gateway=GatewaySettings(port=0, request_seconds=0.3)) as here:
        event = await paid(here)
        here.outside.yookassa.troubles.gate = gate = trio.Event()
        answer = await here.deliver("yookassa", event)
        assert (answer.status_code, answer.json()["error"]) == (503, "a limit of the gateway: seconds")
        assert answer.headers["retry-after"] == "10"
        assert await here.value("SELECT state FROM provider_events") == "received"
        gate.set()
        await here.deliver_until_taken("yookassa", event)
        assert await here.counts() == (1, 1, 0)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A server of these tests alone, which may be stopped."""
    server = Cluster(Path(tempfile.mkdtemp(prefix="atlas-pg-", dir="/tmp")))
    try:
        server.initialise()
        server.start()
        server.template()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.root, ignore_errors=True)


@pytest.fixture
def own_dsn(own_cluster: Cluster) -> str:
    """A database on it."""
    return own_cluster.dsn(own_cluster.create_database(own_cluster.template()))


@asynccontextmanager
async def outage(here: Harness, cluster: Cluster) -> AsyncIterator[None]:
    """The database is down for the length of the block; afterwards the pools are whole again."""
    assert cluster.process is not None
    cluster.process.send_signal(signal.SIGINT)
    await trio.to_thread.run_sync(cluster.process.wait)
    await here.until_event(PoolWentDown)
    try:
        yield
    finally:
        await trio.to_thread.run_sync(cluster.start)
    await here.until_full("pool.gateway")
    await here.until_full("pool.main")


async def test_with_the_database_down_nothing_is_acknowledged_and_the_repetition_is_booked(
    own_cluster: Cluster, own_dsn: str
) -> None:
    async with harness(own_dsn) as here:
        event = await paid(here)
        async with outage(here, own_cluster):
            assert (await here.deliver("yookassa", event)).status_code == 503
        await here.deliver_until_taken("yookassa", event)
        assert await here.counts() == (1, 1, 0)


async def test_a_database_that_goes_down_between_receipt_and_booking_costs_a_repetition(
    own_cluster: Cluster, own_dsn: str
) -> None:
    async with harness(own_dsn) as here:
        event = await paid(here)
        troubles = here.outside.yookassa.troubles
        troubles.gate = gate = trio.Event()
        answers = []

        async def deliver() -> None:
            answers.append(await here.deliver("yookassa", event))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            await troubles.someone_waits.wait()
            assert await here.value("SELECT state FROM provider_events") == "received"
            async with outage(here, own_cluster):
                gate.set()
                await here.until_event(EventPostponed)
        assert [answer.status_code for answer in answers] == [503]
        assert await here.counts() == (0, 0, 0)
        await here.deliver_until_taken("yookassa", event)
        assert await here.counts() == (1, 1, 0)


async def test_with_the_database_down_a_checkout_is_refused_in_time(own_cluster: Cluster, own_dsn: str) -> None:
    async with harness(own_dsn) as here:
        telegram = here.outside.telegram
        invoice = await here.invoice("telegram", await here.order("telegram"))
        async with outage(here, own_cluster):
            query = telegram.check_out(1001, invoice.pay_url or "")
            assert (await here.deliver("telegram", telegram.event(query))).status_code == 503
            answer = await telegram.answer_to(query)
        assert answer["ok"] is False
        assert "Деньги не списаны" in str(answer["error_message"])


async def test_while_a_provider_is_away_its_event_waits_and_is_booked_once_it_is_back(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here)
        here.outside.yookassa.troubles.before.extend([500] * 3)
        assert (await here.deliver("yookassa", event)).status_code == 503
        assert await here.value("SELECT attempts FROM provider_events") == 0
        await here.move_clock(seconds=30)
        watcher = await here.watcher()
        watcher.tell(WakeUp())
        await until_counts(here, (1, 1, 0))


async def test_a_watcher_that_dies_between_a_refund_and_its_booking_books_it_once(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        event = await paid(here, "stripe")
        assert (await here.deliver("stripe", event)).json()["result"] == "entitlement"
        charge = str(await here.value("SELECT charge_id FROM money_in"))
        await here.run(partial(reserve_refund, actor="operator", idempotency_key="k"), "stripe", charge)
        here.system.services.failpoints.arm("payment_watcher", "refunded")
        watcher = await here.watcher()
        await here.move_clock(seconds=31)
        watcher.tell(WakeUp())
        with trio.fail_after(15):
            await here.system.up(watcher, 2)
        assert len(here.outside.stripe.refunds) == 1
        watcher.tell(WakeUp())
        assert (await here.until_event(RefundMade)).state == "done"
        assert len(here.outside.stripe.refunds) == 1
        assert await here.value("SELECT sum(amount) FROM refunds") == 14900


async def test_a_watcher_that_dies_after_it_read_a_statement_books_nothing_twice(database_dsn: str) -> None:
    async with harness(database_dsn) as here:
        await paid(here, "telegram")  # and no update tells of it
        here.system.services.failpoints.arm("payment_watcher", "read")
        watcher = await here.watcher()
        with trio.fail_after(15):
            await here.system.up(watcher, 2)
        await until_counts(here, (1, 1, 0))
        await look(here, watcher)
        assert await here.counts() == (1, 1, 0)
