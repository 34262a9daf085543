"""Every worker is killed at every point that its code names: between any two steps nothing is lost and nothing done twice.

The list is read from the code. A point that no scenario here reaches fails the test, and so does a worker without one.
"""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from actors.health.healthcheck import Healthcheck
from actors.health.housekeeping import Housekeeping
from actors.keys.activation import Activation
from actors.keys.fast_expiry import FastExpiry
from actors.keys.reconcile import Reconcile
from actors.leadership.instance import Instance
from actors.nodes.canary import Canary, CanarySettings
from actors.notices.reminders import Reminders
from actors.payments.auto_renewal import AutoRenewal
from actors.pool.client import Pool
from db.billing.invariants import check_invariants
from db.billing.orders import open_order, open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.renewals import set_auto_renew
from db.money import Money
from db.tx import LockSpace, Tx
from runtime import Actor, Resume, Suspend
from runtime.testing import OnCrash
from tests.actors.failpoints_of import REPOSITORY, Failpoint, failpoints
from tests.actors.locks import IMPATIENT, locked
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.vpn.agents import key
from vpn.protocol import KeySpec

ELSEWHERE = {
    "notifications": "tests/actors/notices/test_notifications.py",
    "payment_watcher": "tests/actors/payments/test_crashes_and_outages.py",
}
"""Workers that need a Bot API or a provider to do anything: where they are killed at their points."""

NEVER = 3600.0
THE_NODE = "node.local"
"""The node that the shipped tree declares; here it is another one."""
WORKERS: dict[str, Actor] = {
    "activation": Activation(interval=NEVER),
    "fast_expiry": FastExpiry(interval=NEVER, page_size=2),
    "reconcile": Reconcile(interval=NEVER, start_jitter=(NEVER, NEVER), budget=60.0, grace=0.0, restore_from=3),
    "auto_renewal": AutoRenewal(interval=NEVER, page_size=2),
    "reminders": Reminders(interval=NEVER, page_size=2),
    "housekeeping": Housekeeping(interval=NEVER, budget=60.0, page_size=2),
    "instance": Instance(),
    "healthcheck": Healthcheck(interval=0.1),
    "canary": Canary(CanarySettings(), interval=NEVER, start_jitter=(NEVER, NEVER), budget=30.0),
}


@attrs.define(eq=False)
class Campaign:
    """One harness with every worker in it, and what was killed there."""

    harness: NodeHarness
    other: Pool
    "As another session sees it."
    customers: int = 0
    moved_days: float = 0.0
    killed: list[Failpoint] = attrs.field(factory=list)

    async def strike(self, worker: str, point: str) -> None:
        """Arm the point, do what leads there, and see that all of it is done once."""
        actor = self.harness.refs[worker].name
        self.harness.pool.system.services.failpoints.arm(actor, point)
        before = self.harness.refs[worker].incarnation
        await SCENARIOS[worker](self, point)

        async def has_died() -> bool:
            return self.harness.refs[worker].incarnation > before

        await self.harness.until(has_died)
        self.harness.pool.system.services.failpoints.disarm()
        report = self.harness.pool.system.services.failpoints.report()
        self.killed += [
            (worker, found.point) for found in report if (found.actor, found.point, found.fired) == (actor, point, 1)
        ]

    async def customer(self, *, live: bool = True) -> int:
        """Somebody new who has bought a month."""
        self.customers += 1
        await self.harness.buy(self.customers)
        if live:
            await self.harness.until_status(self.customers, "active")
        return self.customers

    async def pass_days(self, days: float) -> None:
        """Let the database's clock go on."""
        self.moved_days += days
        await self.harness.move_clock(days=self.moved_days)

    @asynccontextmanager
    async def asleep(self, worker: str) -> AsyncIterator[None]:
        """The worker looks at nothing until the block ends, and then at once."""
        self.harness.refs[worker].tell(Suspend())
        yield
        self.harness.refs[worker].tell(Resume())
        self.harness.wake(worker)

    @asynccontextmanager
    async def locked(self, worker: str, statement: str) -> AsyncIterator[None]:
        """Somebody keeps something locked until the worker has died of its point."""
        before = self.harness.refs[worker].incarnation

        async def has_died() -> bool:
            return self.harness.refs[worker].incarnation > before

        async with locked(self.other, statement):
            yield
            await self.harness.until(has_died)

    async def until(self, query: str, wanted: object) -> None:
        """Wait until a query has this answer."""

        async def is_so() -> bool:
            return await self.harness.value(query) == wanted

        await self.harness.until(is_so)


async def activation(here: Campaign, point: str) -> None:
    if point == "postponed":
        async with here.asleep("activation"):
            number = await here.customer(live=False)
            row = await here.harness.value("SELECT max(id) FROM vpn_keys")
        async with here.locked("activation", f"SELECT pg_advisory_xact_lock({int(LockSpace.KEY)}, {row})"):
            pass
    elif point == "failed":
        async with here.asleep("activation"):
            number = await here.customer(live=False)
            await here.harness.put_stranger("oslo", await newer(here, number))
    else:
        number = await here.customer()
    await until_status(here, "activation", number, "active")
    assert await here.harness.value("SELECT count(*) FROM journals WHERE customer_id = $1", number) == 1


async def newer(here: Campaign, number: int) -> KeySpec:
    """The customer's key as the node would have it if it had been told something newer: it refuses what is older."""
    found = await here.harness.key(number)
    return attrs.evolve(key(found.key_id), uuid=found.uuid, generation=found.generation + 100)


async def until_status(here: Campaign, worker: str, number: int, status: str) -> None:
    async def is_so() -> bool:
        here.harness.wake(worker)  # when it was to look again died with the incarnation that knew
        return (await here.harness.key(number)).status == status

    await here.harness.until(is_so)


async def fast_expiry(here: Campaign, point: str) -> None:
    if point in ("postponed", "failed"):
        number = await here.customer()
        async with here.asleep("fast_expiry"):
            await here.harness.revoke(number)
            if point == "failed":
                await here.harness.put_stranger("oslo", await newer(here, number))
        if point == "postponed":
            row = await here.harness.value("SELECT max(id) FROM vpn_keys")
            async with here.locked("fast_expiry", f"SELECT pg_advisory_xact_lock({int(LockSpace.KEY)}, {row})"):
                pass
        await until_status(here, "fast_expiry", number, "removed")
        return
    if point != "expired":
        number = await here.customer()
        await here.harness.revoke(number)
        await here.harness.until_status(number, "removed")
        return
    for _ in range(3):
        await here.customer()
    await here.pass_days(31)
    here.harness.wake("fast_expiry")
    await here.until("SELECT count(*) FROM vpn_keys WHERE activation_status <> 'removed'", 0)
    await here.until("SELECT count(*) FROM subscriptions WHERE state = 'active'", 0)


async def reconcile(here: Campaign, point: str) -> None:
    live = [await here.harness.key(await here.customer()) for _ in range(3)]
    names = [each.key_id for each in live]
    if point in ("removing", "removed"):
        await here.harness.put_stranger("oslo", key(f"stranger-{point}"))
    elif point == "restored":
        await here.harness.lose("oslo", *names)
    else:
        await here.harness.lose("oslo", names[0])

    async def is_right() -> bool:
        here.harness.wake("reconcile")
        listed = await here.harness.listed("oslo")
        return f"stranger-{point}" not in listed and {*names} <= {*listed}

    await here.harness.until(is_right)


async def auto_renewal(here: Campaign, point: str) -> None:
    number = await here.customer()

    async def subscribe(tx: Tx) -> None:
        order = await open_topup(tx, number, Money(14900), idempotency_key="funds")
        await finalize_purchase(tx, FinalizePurchase("test", f"funds-{number}", order.quote.amount, order.id))
        await set_auto_renew(tx, number, True, actor="test")

    await here.harness.run(subscribe)
    if point == "failed":
        await here.harness.value(
            "CREATE FUNCTION refuse_renewal() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'a defect of ours'; END$$"
        )
        await here.harness.value(
            "CREATE TRIGGER refuse_renewal BEFORE INSERT ON renewals FOR EACH ROW EXECUTE FUNCTION refuse_renewal()"
        )
    if point == "postponed":
        async with here.locked("auto_renewal", f"SELECT FROM customers WHERE telegram_id = {number} FOR UPDATE"):
            await here.pass_days(29.9)
            here.harness.wake("auto_renewal")
        await here.pass_days(0.01)
    else:
        await here.pass_days(29.9)
    here.harness.wake("auto_renewal")
    if point == "failed":
        await here.until("SELECT count(*) FROM renewal_schedule WHERE failures = 1", 1)
        await here.harness.value("DROP TRIGGER refuse_renewal ON renewals")
        await here.pass_days(0.01)
        here.harness.wake("auto_renewal")
    count = "SELECT count(*) FROM renewals r JOIN subscriptions s ON s.id = r.subscription_id WHERE s.customer_id = {}"
    await here.until(count.format(number), 1)
    assert await here.harness.value("SELECT sum(balance) FROM accounts WHERE customer_id = $1", number) == 0


async def reminders(here: Campaign, point: str) -> None:
    number = await here.customer()
    await here.pass_days(28)
    here.harness.wake("reminders")
    await here.until(f"SELECT count(*) FROM outbox WHERE customer_id = {number} AND kind = 'reminder_paid_3d'", 1)


async def housekeeping(here: Campaign, point: str) -> None:
    if point == "case opened":
        move = "UPDATE accounts SET balance = balance {} WHERE kind = 'paid' AND customer_id = 1"
        await here.harness.value(move.format("+ 1"))
        here.harness.wake("housekeeping")
        await here.until("SELECT count(*) FROM cases WHERE kind = 'money_invariant'", 1)
        await here.harness.value(move.format("- 1"))
        return
    number = await here.customer()

    async def leave_open(tx: Tx) -> None:
        for order in range(3):
            await open_order(tx, number, "basic", 30, idempotency_key=f"{point}-{order}")

    await here.harness.run(leave_open)
    await here.pass_days(0.1)
    here.harness.wake("housekeeping")
    await here.until("SELECT count(*) FROM orders WHERE state = 'pending'", 0)


async def instance(here: Campaign, point: str) -> None:
    async def holds() -> bool:
        inside = here.harness.refs["instance"].address.inspect()["actor"]
        return here.harness.refs["instance"].incarnation > 1 and isinstance(inside, dict) and bool(inside["held"])

    await here.harness.until(holds)


async def canary(here: Campaign, point: str) -> None:
    here.harness.wake("canary")

    async def has_looked_again() -> bool:
        ref = here.harness.refs["canary"]
        inside = ref.address.inspect()["actor"]
        assert isinstance(inside, dict)
        if ref.incarnation > 1 and not inside["running"]:
            here.harness.wake("canary")
        return ref.incarnation > 1 and bool(inside["iterations"])

    await here.harness.until(has_looked_again)


async def healthcheck(here: Campaign, point: str) -> None:
    ref = here.harness.refs["healthcheck"]
    before, beats = ref.incarnation, here.harness.pool.system.services.beats

    async def has_died() -> bool:
        return ref.incarnation > before

    await here.harness.until(has_died)
    seen = beats.healthcheck

    async def beats_again() -> bool:
        return beats.healthcheck != seen

    await here.harness.until(beats_again)


async def node(here: Campaign, point: str) -> None:
    number = await here.customer()
    await here.harness.revoke(number)
    await here.harness.until_status(number, "removed")
    assert await here.harness.value("SELECT max(attempts) FROM vpn_keys") == 0


SCENARIOS: dict[str, Callable[[Campaign, str], Awaitable[None]]] = {
    "activation": activation,
    "fast_expiry": fast_expiry,
    "reconcile": reconcile,
    "auto_renewal": auto_renewal,
    "reminders": reminders,
    "housekeeping": housekeeping,
    "instance": instance,
    "canary": canary,
    "healthcheck": healthcheck,
    THE_NODE: node,
}


@asynccontextmanager
async def campaign(dsn: str, directory: Path) -> AsyncIterator[Campaign]:
    async with node_harness(dsn, directory, database=IMPATIENT) as harness:
        for name, worker in WORKERS.items():
            harness.refs[name] = await harness.pool.system.start(worker, name=name, on_crash=OnCrash.RESTART)
        harness.refs[THE_NODE] = await harness.node("oslo", on_crash=OnCrash.RESTART)
        _, other = await harness.pool.holder("other")
        yield Campaign(harness, other)


async def test_every_worker_may_die_at_every_point_that_its_code_names(
    database_dsn: str, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    listed = [(worker, point) for worker, point in failpoints() if worker not in ELSEWHERE]
    assert {worker for worker, _ in listed} <= {*SCENARIOS}, "a worker has no scenario here and is named nowhere else"
    async with campaign(database_dsn, tmp_path) as here:
        for worker, point in listed:
            await here.strike(worker, point)
        await here.pass_days(0.1)

        async def is_at_rest() -> bool:
            for worker in WORKERS.keys() - {"instance", "healthcheck"}:
                here.harness.wake(worker)
            return await here.harness.run(broken) == []

        try:
            await here.harness.until(is_at_rest)
        except AssertionError as error:
            raise AssertionError("\n".join(await here.harness.run(broken))) from error
    assert here.killed == listed
    tell(f"killed at {len(listed)} points: " + ", ".join(f"{worker}/{point}" for worker, point in listed))


async def broken(tx: Tx) -> list[str]:
    """The invariants that do not hold; nobody delivers messages here."""
    found = [invariant for invariant in await check_invariants(tx) if not invariant.holds]
    return [
        f"{invariant.name}: {subject} {problem}"
        for invariant in found
        for subject, problem in invariant.sample
        if not problem.startswith("undelivered")
    ]


def test_whoever_is_killed_elsewhere_is_killed_there_at_every_point() -> None:
    for worker, path in ELSEWHERE.items():
        tree = ast.parse((REPOSITORY / path).read_text())
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        arms = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "arm"]
        points = {point for name, point in failpoints() if name == worker}
        assert arms and points, worker
        assert points <= words, f"{path} does not name {sorted(points - words)} of {worker}"
