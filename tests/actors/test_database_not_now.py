"""The database is there and cannot do it now: workers wait, nobody crashes, one locked row costs its own work only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from actors.activation import Activation
from actors.auto_renewal import AutoRenewal
from actors.canary import Canary, CanarySettings
from actors.fast_expiry import FastExpiry
from actors.health_conditions import ConditionBegan
from actors.healthcheck import Healthcheck
from actors.housekeeping import Housekeeping
from actors.instance import Instance
from actors.key_events import KeyPostponed
from actors.notices.settings import TelegramSettings
from actors.notifications import Notifications
from actors.payment_watcher import PaymentWatcher
from actors.payments.settings import PaymentSettings
from actors.reconcile import Reconcile
from actors.reminders import Reminders
from actors.renewal_events import RenewalFailed, RenewalPostponed, Renewed
from db.lease_errors import LeaseError
from db.locks import LockSpace
from db.money import Money
from db.orders import open_topup
from db.purchases import FinalizePurchase, finalize_purchase
from db.renewals import set_auto_renew
from db.tx import Tx
from runtime.actor import Actor
from runtime.config.secret import Secret
from runtime.message import WakeUp
from runtime.worker import PeriodicWorker
from tests.actors.locks import IMPATIENT, locked
from tests.actors.node_house import NodeHouse, node_house
from tests.actors.telegram import TOKEN, telegram_server
from tests.postgres_cluster import Cluster

PRICE = 14900
NEVER = 3600.0


async def renewed_soon(tx: Tx, telegram_id: int) -> None:
    """Automatic renewal, and the money for it."""
    key = f"funds-{telegram_id}"
    order = await open_topup(tx, telegram_id, Money(PRICE), idempotency_key=key)
    await finalize_purchase(tx, FinalizePurchase("test", key, order.quote.amount, order.id))
    await set_auto_renew(tx, telegram_id, True, actor="test")


async def until_event(house: NodeHouse, is_it: Callable[[object], bool]) -> None:
    async def has_happened() -> bool:
        return any(is_it(event) for event in house.pool.events)

    await house.until(has_happened)


def is_renewed(subscription: int) -> Callable[[object], bool]:
    return lambda event: isinstance(event, Renewed) and event.subscription == subscription


async def test_a_locked_customer_delays_no_other_renewal_and_counts_no_failure(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_house(database_dsn, tmp_path, database=IMPATIENT) as house:
        for number in (1, 2, 3):
            await house.buy(number)
            await house.run(renewed_soon, number)
        await house.move_clock(days=29.9)
        _, other = await house.pool.holder("other")
        async with locked(other, "SELECT FROM customers WHERE telegram_id = 1 FOR UPDATE"):
            worker = await house.pool.system.start(AutoRenewal(interval=NEVER), name="auto_renewal")
            await until_event(house, lambda event: isinstance(event, RenewalPostponed) and event.subscription == 1)
            for subscription in (2, 3):
                await until_event(house, is_renewed(subscription))
            failures = await house.value("SELECT failures FROM renewal_schedule WHERE subscription_id = 1")
            assert failures == 0, "a lock of somebody else's is no error of ours"
        await house.move_clock(days=29.91)
        worker.tell(WakeUp())
        await until_event(house, is_renewed(1))
        assert worker.incarnation == 1
        assert not [event for event in house.pool.events if isinstance(event, RenewalFailed)]


async def test_a_locked_key_costs_only_its_own_activation_and_no_attempt(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path, database=IMPATIENT) as house:
        for number in (1, 2, 3):
            await house.buy(number)
        _, other = await house.pool.holder("other")
        # What the confirmation waits for, and the claim does not.
        lock = f"SELECT pg_advisory_xact_lock({int(LockSpace.KEY)}, (SELECT min(id)::int FROM vpn_keys))"
        async with locked(other, lock):
            await house.activation()
            await house.node("oslo")
            await until_event(house, lambda event: isinstance(event, KeyPostponed) and "pg_blocking_pids" in event.why)
            for number in (2, 3):
                await house.until_status(number, "active")
            assert (await house.key(1)).status == "pending"
        await house.until_status(1, "active")
        assert house.refs["activation"].incarnation == 1
        assert await house.value("SELECT max(attempts) FROM vpn_keys") == 0


async def test_a_table_that_is_locked_crashes_no_worker_of_keys(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path, database=IMPATIENT) as house:
        await house.buy(1)
        await house.node("oslo", wakes=())
        _, other = await house.pool.holder("other")
        async with locked(other, "LOCK TABLE vpn_keys IN SHARE ROW EXCLUSIVE MODE"):
            await house.activation()
            await house.fast_expiry()
            house.wake("fast_expiry")

            async def have_looked() -> bool:
                return all(state(house, name)["last"] is not None for name in house.refs)

            await house.until(have_looked)
            assert all("no database" in str(state(house, name)["last"]) for name in house.refs)
        await house.until_status(1, "active")
        assert {name: ref.incarnation for name, ref in house.refs.items()} == {"activation": 1, "fast_expiry": 1}


async def test_expiry_and_reminders_pass_by_a_customer_whose_row_is_locked(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path, database=IMPATIENT) as house:
        for number in (1, 2):
            await house.buy(number)
        _, other = await house.pool.holder("other")
        expired = "SELECT count(*) FROM subscriptions WHERE state = 'expired'"
        reminded = "SELECT count(*) FROM outbox WHERE kind = 'reminder_paid_3d'"

        async def until(query: str, wanted: int) -> None:
            async def is_so() -> bool:
                return await house.value(query) == wanted

            await house.until(is_so)

        await house.move_clock(days=28)
        lock = "SELECT FROM customers WHERE telegram_id = 1 FOR UPDATE"
        async with locked(other, lock):
            reminders = await house.pool.system.start(Reminders(interval=NEVER), name="reminders")
            await until(reminded, 1)
        reminders.tell(WakeUp())
        await until(reminded, 2)
        await house.move_clock(days=31)
        async with locked(other, lock):
            await house.fast_expiry()
            await until(expired, 1)
        house.wake("fast_expiry")
        await until(expired, 2)


def everybody(telegram: TelegramSettings) -> dict[str, Actor]:
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


async def test_a_database_that_takes_no_writes_is_waited_for_by_every_worker_without_a_crash(
    database_dsn: str, tmp_path: Path, cluster: Cluster
) -> None:
    async with telegram_server() as telegram, node_house(database_dsn, tmp_path) as house:
        name = database_dsn.partition("@/")[2].partition("?")[0]

        async def switch(*, is_read_only: bool) -> None:
            word = "on" if is_read_only else "off"
            for statement in (
                f'ALTER DATABASE "{name}" SET default_transaction_read_only = {word}',
                f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'",
            ):
                await trio.to_thread.run_sync(partial(cluster.sql, statement))
            await house.pool.until_full()

        await house.buy(1)
        await house.run(renewed_soon, 1)
        await house.buy(2)
        await house.node("oslo", wakes=())
        await house.move_clock(days=29.9)
        await switch(is_read_only=True)
        actors = everybody(TelegramSettings(within=4.0, token=Secret(TOKEN), url=telegram.url, chat_rate=1000.0))
        refs = {worker: await house.pool.system.start(actor, name=worker) for worker, actor in actors.items()}
        house.refs |= refs
        workers = [worker for worker, actor in actors.items() if isinstance(actor, PeriodicWorker)]

        async def has_everybody_looked() -> bool:
            for worker in workers:
                house.wake(worker)
            return all(int(str(state(house, worker)["iterations"])) >= 2 for worker in workers)

        await house.until(has_everybody_looked)
        await until_event(house, lambda event: isinstance(event, ConditionBegan) and "takes no writes" in event.trouble)
        assert not state(house, "instance")["held"]
        assert {name: ref.incarnation for name, ref in refs.items()} == dict.fromkeys(refs, 1)

        await switch(is_read_only=False)

        async def is_all_done() -> bool:
            for worker in workers:
                house.wake(worker)
            with contextlib.suppress(LeaseError):  # a connection that was cut may still be handed out once
                return await is_done()
            return False

        async def is_done() -> bool:
            return (
                await house.value("SELECT count(*) FROM vpn_keys WHERE activation_status <> 'active'") == 0
                and await house.value("SELECT count(*) FROM renewals") == 1
                and await house.value("SELECT count(*) > 0 FROM outbox WHERE kind LIKE 'reminder%'") is True
                and await house.value("SELECT count(*) FROM outbox WHERE state = 'pending'") == 0
                and bool(state(house, "instance")["held"])
            )

        await house.until(is_all_done)
        assert {name: ref.incarnation for name, ref in refs.items()} == dict.fromkeys(refs, 1)


def state(house: NodeHouse, worker: str) -> dict[str, object]:
    found = house.refs[worker].address.inspect()["actor"]
    assert isinstance(found, dict)
    return found
