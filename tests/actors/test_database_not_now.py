"""The database is there and cannot do it now: workers wait, nobody crashes, one locked row costs its own work only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from actors.conditions import ConditionBegan
from actors.health.healthcheck import Healthcheck
from actors.health.housekeeping import Housekeeping
from actors.keys.activation import Activation
from actors.keys.events import KeyPostponed
from actors.keys.fast_expiry import FastExpiry
from actors.keys.reconcile import Reconcile
from actors.leadership.instance import Instance
from actors.nodes.canary import Canary, CanarySettings
from actors.notices.notifications import Notifications
from actors.notices.reminders import Reminders
from actors.notices.settings import TelegramNoticeSettings
from actors.payments.auto_renewal import AutoRenewal, RenewalFailed, RenewalPostponed, Renewed
from actors.payments.payment_watcher import PaymentWatcher
from actors.payments.settings import PaymentSettings
from db.billing.orders import open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.renewals import set_auto_renew
from db.errors import LeaseError
from db.money import Money
from db.tx import LockSpace, Tx
from runtime import Actor, PeriodicWorker, WakeUp
from runtime.config import Secret
from tests.actors.locks import IMPATIENT, locked
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.actors.notices.telegram import TOKEN, telegram_server
from tests.postgres_cluster import Cluster

PRICE = 14900
NEVER = 3600.0


async def renewed_soon(tx: Tx, telegram_id: int) -> None:
    """Automatic renewal, and the money for it."""
    key = f"funds-{telegram_id}"
    order = await open_topup(tx, telegram_id, Money(PRICE), idempotency_key=key)
    await finalize_purchase(tx, FinalizePurchase("test", key, order.quote.amount, order.id))
    await set_auto_renew(tx, telegram_id, True, actor="test")


async def until_event(harness: NodeHarness, is_it: Callable[[object], bool]) -> None:
    async def has_happened() -> bool:
        return any(is_it(event) for event in harness.pool.events)

    await harness.until(has_happened)


def is_renewed(subscription: int) -> Callable[[object], bool]:
    return lambda event: isinstance(event, Renewed) and event.subscription == subscription


async def test_a_locked_customer_delays_no_other_renewal_and_counts_no_failure(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path, database=IMPATIENT) as harness:
        for number in (1, 2, 3):
            await harness.buy(number)
            await harness.run(renewed_soon, number)
        await harness.move_clock(days=29.9)
        _, other = await harness.pool.holder("other")
        async with locked(other, "SELECT FROM customers WHERE telegram_id = 1 FOR UPDATE"):
            worker = await harness.pool.system.start(AutoRenewal(interval=NEVER), name="auto_renewal")
            await until_event(harness, lambda event: isinstance(event, RenewalPostponed) and event.subscription == 1)
            for subscription in (2, 3):
                await until_event(harness, is_renewed(subscription))
            failures = await harness.value("SELECT failures FROM renewal_schedule WHERE subscription_id = 1")
            assert failures == 0, "a lock of somebody else's is no error of ours"
        await harness.move_clock(days=29.91)
        worker.tell(WakeUp())
        await until_event(harness, is_renewed(1))
        assert worker.incarnation == 1
        assert not [event for event in harness.pool.events if isinstance(event, RenewalFailed)]


async def test_a_locked_key_costs_only_its_own_activation_and_no_attempt(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path, database=IMPATIENT) as harness:
        for number in (1, 2, 3):
            await harness.buy(number)
        _, other = await harness.pool.holder("other")
        # What the confirmation waits for, and the claim does not.
        lock = f"SELECT pg_advisory_xact_lock({int(LockSpace.KEY)}, (SELECT min(id)::int FROM vpn_keys))"
        async with locked(other, lock):
            await harness.activation()
            await harness.node("oslo")
            await until_event(
                harness, lambda event: isinstance(event, KeyPostponed) and "pg_blocking_pids" in event.why
            )
            for number in (2, 3):
                await harness.until_status(number, "active")
            assert (await harness.key(1)).status == "pending"
        await harness.until_status(1, "active")
        assert harness.refs["activation"].incarnation == 1
        assert await harness.value("SELECT max(attempts) FROM vpn_keys") == 0


async def test_a_table_that_is_locked_crashes_no_worker_of_keys(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path, database=IMPATIENT) as harness:
        await harness.buy(1)
        await harness.node("oslo", wakes=())
        _, other = await harness.pool.holder("other")
        async with locked(other, "LOCK TABLE vpn_keys IN SHARE ROW EXCLUSIVE MODE"):
            await harness.activation()
            await harness.fast_expiry()
            harness.wake("fast_expiry")

            async def have_looked() -> bool:
                return all(state(harness, name)["last"] is not None for name in harness.refs)

            await harness.until(have_looked)
            assert all("no database" in str(state(harness, name)["last"]) for name in harness.refs)
        await harness.until_status(1, "active")
        assert {name: ref.incarnation for name, ref in harness.refs.items()} == {"activation": 1, "fast_expiry": 1}


async def test_expiry_and_reminders_pass_by_a_customer_whose_row_is_locked(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path, database=IMPATIENT) as harness:
        for number in (1, 2):
            await harness.buy(number)
        _, other = await harness.pool.holder("other")
        expired = "SELECT count(*) FROM subscriptions WHERE state = 'expired'"
        reminded = "SELECT count(*) FROM outbox WHERE kind = 'reminder_paid_3d'"

        async def until(query: str, wanted: int) -> None:
            async def is_so() -> bool:
                return await harness.value(query) == wanted

            await harness.until(is_so)

        await harness.move_clock(days=28)
        lock = "SELECT FROM customers WHERE telegram_id = 1 FOR UPDATE"
        async with locked(other, lock):
            reminders = await harness.pool.system.start(Reminders(interval=NEVER), name="reminders")
            await until(reminded, 1)
        reminders.tell(WakeUp())
        await until(reminded, 2)
        await harness.move_clock(days=31)
        async with locked(other, lock):
            await harness.fast_expiry()
            await until(expired, 1)
        harness.wake("fast_expiry")
        await until(expired, 2)


def everybody(telegram: TelegramNoticeSettings) -> dict[str, Actor]:
    """Every worker of the shipped tree, and who else writes."""
    return {
        "activation": Activation(interval=NEVER),
        "fast_expiry": FastExpiry(interval=NEVER),
        "reconcile": Reconcile(interval=NEVER, budget=60.0),
        "auto_renewal": AutoRenewal(interval=NEVER),
        "reminders": Reminders(interval=NEVER),
        "housekeeping": Housekeeping(interval=NEVER, budget=60.0),
        "notifications": Notifications(telegram, interval=NEVER, budget=30.0),
        "payment_watcher": PaymentWatcher(PaymentSettings(), interval=NEVER),
        "canary": Canary(CanarySettings(), interval=NEVER, start_jitter=(0.0, 0.0)),
        "healthcheck": Healthcheck(interval=0.2),
        "instance": Instance(patience=0.5, mode="standby"),
    }


async def delivered(tx: Tx) -> None:
    """Some node had the keys in time: what is late from now on moves no end."""
    await tx.execute("INSERT INTO first_placements (event_id) SELECT id FROM entitlement_events")


async def test_every_worker_waits_without_a_crash_for_a_database_that_takes_no_writes(
    database_dsn: str, tmp_path: Path, cluster: Cluster
) -> None:
    async with telegram_server() as telegram, node_harness(database_dsn, tmp_path) as harness:
        name = database_dsn.partition("@/")[2].partition("?")[0]

        async def switch(*, is_read_only: bool) -> None:
            word = "on" if is_read_only else "off"
            for statement in (
                f'ALTER DATABASE "{name}" SET default_transaction_read_only = {word}',
                f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'",
            ):
                await trio.to_thread.run_sync(partial(cluster.sql, statement))
            await harness.pool.until_full()

        await harness.buy(1)
        await harness.run(renewed_soon, 1)
        await harness.buy(2)
        await harness.run(delivered)
        await harness.node("oslo", wakes=())
        await harness.move_clock(days=29.9)
        await switch(is_read_only=True)
        actors = everybody(TelegramNoticeSettings(within=4.0, token=Secret(TOKEN), url=telegram.url, chat_rate=1000.0))
        refs = {worker: await harness.pool.system.start(actor, name=worker) for worker, actor in actors.items()}
        harness.refs |= refs
        workers = [worker for worker, actor in actors.items() if isinstance(actor, PeriodicWorker)]

        async def has_everybody_looked() -> bool:
            for worker in workers:
                harness.wake(worker)
            return all(int(str(state(harness, worker)["iterations"])) >= 2 for worker in workers)

        await harness.until(has_everybody_looked)
        await until_event(
            harness, lambda event: isinstance(event, ConditionBegan) and "takes no writes" in event.trouble
        )
        assert not state(harness, "instance")["held"]
        assert {name: ref.incarnation for name, ref in refs.items()} == dict.fromkeys(refs, 1)

        await switch(is_read_only=False)

        async def is_all_done() -> bool:
            for worker in workers:
                harness.wake(worker)
            with contextlib.suppress(LeaseError):  # a connection that was cut may still be handed out once
                return await is_done()
            return False

        async def is_done() -> bool:
            return (
                await harness.value("SELECT count(*) FROM vpn_keys WHERE activation_status <> 'active'") == 0
                and await harness.value("SELECT count(*) FROM renewals") == 1
                and await harness.value("SELECT count(*) > 0 FROM outbox WHERE kind LIKE 'reminder%'") is True
                and await harness.value("SELECT count(*) FROM outbox WHERE state = 'pending'") == 0
                and bool(state(harness, "instance")["held"])
            )

        await harness.until(is_all_done)
        assert {name: ref.incarnation for name, ref in refs.items()} == dict.fromkeys(refs, 1)


def state(harness: NodeHarness, worker: str) -> dict[str, object]:
    found = harness.refs[worker].address.inspect()["actor"]
    assert isinstance(found, dict)
    return found
