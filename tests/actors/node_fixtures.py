"""Real nodes on a real database: agents with Xray, their actors, and the workers that converge them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import attrs
import trio

from actors.keys.activation import Activation
from actors.keys.fast_expiry import FastExpiry
from actors.keys.reconcile import Reconcile
from actors.nodes.node import NodeActor
from db.access.subscriptions import KeyView, SubscriptionView, get_subscription, mark_revoked
from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.customers import add_customer
from db.schema.demo_clock import set_clock_offset
from db.settings import DatabaseSettings
from db.tx import Tx
from runtime import Event, Ref, WakeUp
from runtime.config import Secret
from runtime.testing import OnCrash
from tests.actors.nodes.lying_proxy import LyingProxy, lying_proxy
from tests.actors.pool_fixtures import POOL, PoolHarness, pool_harness
from tests.fork_server import shared_fork_server
from tests.vpn.agents import TOKEN, RunningAgent, running_agent
from vpn.node.settings import NodeSettings
from vpn.protocol import KeySpec, NodeKey, NodeState

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = ("activation", "fast_expiry", "reconcile")
NEVER = 3600.0
"An interval after which nothing happens by itself in a test."


@attrs.define(eq=False)
class NodeHarness:
    """A database with a pool, some nodes, and whichever workers the test starts."""

    pool: PoolHarness
    directory: Path
    stack: AsyncExitStack
    agents: dict[str, RunningAgent] = attrs.field(factory=dict)
    refs: dict[str, Ref] = attrs.field(factory=dict)
    patience: float = 90.0
    "Seconds that a test waits for anything."

    async def agent(self, name: str) -> RunningAgent:
        """Start a node's agent, or start it again."""
        running = await self.stack.enter_async_context(
            running_agent(self.directory / name, server=shared_fork_server("vpn.agent"))
        )
        self.agents[name] = running
        return running

    async def node_behind_proxy(self, name: str) -> LyingProxy:
        """Start a node's actor, and between it and its agent a proxy, which is truthful so far."""
        proxy = await self.stack.enter_async_context(lying_proxy((await self.agent(name)).url))
        await self.node(name, proxy.url)
        return proxy

    async def node(
        self,
        name: str,
        url: str = "",
        *,
        wakes: tuple[str, ...] = WORKERS,
        probe: float = 0.2,
        on_crash: OnCrash = OnCrash.FAIL,
    ) -> Ref:
        """Start a node's actor, in front of its agent or of the address given (a proxy); its agent is started first."""
        if name not in self.agents:
            await self.agent(name)
        settings = NodeSettings(url=url or self.agents[name].url, token=Secret(TOKEN), within=5.0)
        actor = NodeActor(
            name,
            settings,
            wakes=tuple(w for w in wakes if w in self.refs),
            probe_interval=probe,
            count_interval=probe,
            first_pause=0.2,
            longest_pause=0.5,
        )
        ref = await self.pool.system.start(actor, name=f"node.{name}", on_crash=on_crash)
        await self.until_back(name)
        return ref

    async def until_back(self, name: str) -> None:
        """Wait until the node's actor says that the node can be used."""
        address = self.pool.system.address(f"node.{name}")

        async def is_ready() -> bool:
            return address.readiness[0]

        await self.until(is_ready)

    async def activation(self) -> Ref:
        """The worker that activates; it is woken by the test and by the nodes."""
        return await self._start("activation", Activation(interval=NEVER))

    async def fast_expiry(self) -> Ref:
        """The worker that removes."""
        return await self._start("fast_expiry", FastExpiry(interval=NEVER, start_jitter=(NEVER, NEVER)))

    async def reconcile(self, on_crash: OnCrash = OnCrash.FAIL, **options: object) -> Ref:
        """The worker that reconciles, which never looks unless it is woken."""
        options.setdefault("retry_troubled", NEVER)
        actor = Reconcile(interval=NEVER, start_jitter=(NEVER, NEVER), budget=60.0, **options)  # type: ignore[arg-type]  # the test's own
        return await self._start("reconcile", actor, on_crash)

    async def _start(self, name: str, actor: object, on_crash: OnCrash = OnCrash.FAIL) -> Ref:
        self.refs[name] = ref = await self.pool.system.start(actor, name=name, on_crash=on_crash)  # type: ignore[arg-type]  # an actor
        return ref

    async def run(self, function: Callable[Concatenate[Tx, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a business function in a transaction."""

        async def call(tx: Tx) -> T:
            return await function(tx, *args, **kwargs)

        return await self.pool.pool.run("test", call)

    async def value(self, query: str, *args: object) -> object:
        """One value of the database."""

        async def fetch(tx: Tx) -> object:
            return await tx.fetchval(query, *args)

        return await self.pool.pool.run("test", fetch)

    async def move_clock(self, **offset: float) -> None:
        """The database's clock, this far from the real one."""
        await self.run(set_clock_offset, timedelta(**offset))

    async def buy(self, telegram_id: int, charge: str = "first") -> None:
        """A customer pays for a month."""

        async def purchase(tx: Tx) -> None:
            await add_customer(tx, telegram_id)
            name = f"{charge}-{telegram_id}"
            order = await open_order(tx, telegram_id, "basic", 30, idempotency_key=name)
            await finalize_purchase(tx, FinalizePurchase("test", name, order.quote.amount, order.id))

        await self.run(purchase)
        self.wake("activation")

    async def revoke(self, telegram_id: int) -> None:
        """An operator ends a customer's access."""
        await self.run(mark_revoked, telegram_id, actor="test")
        self.wake("fast_expiry")

    def wake(self, worker: str) -> None:
        """Let a worker look now."""
        if worker in self.refs:
            self.refs[worker].tell(WakeUp())

    async def view(self, telegram_id: int) -> SubscriptionView:
        """The customer's subscription as the customer is shown it."""
        found = await self.run(get_subscription, telegram_id)
        assert found is not None
        return found

    async def key(self, telegram_id: int) -> KeyView:
        """The customer's key as the customer is shown it."""
        found = (await self.view(telegram_id)).key
        assert found is not None
        return found

    async def until_status(self, telegram_id: int, status: str) -> None:
        """Wait until the customer's key has this status."""

        async def is_so() -> bool:
            return (await self.key(telegram_id)).status == status

        await self.until(is_so)

    async def until(self, is_so: Callable[[], Awaitable[bool]], within: float = 0.0) -> None:
        """Wait until something is so; looked at again after every event of the system."""
        changed = trio.Event()

        def note(_: Event) -> None:
            nonlocal changed
            changed.set()
            changed = trio.Event()

        unsubscribe = self.pool.system.services.events.subscribe(note)
        try:
            with trio.move_on_after(within or self.patience):
                while True:
                    current = changed
                    if await is_so():
                        return
                    with trio.move_on_after(0.05):  # readiness and iterations are no events
                        await current.wait()
        finally:
            unsubscribe()
        said = [event.line() for event in self.pool.events[-20:]]
        found = [str(ref.address.inspect()) for ref in self.refs.values()]
        raise AssertionError("\n".join(["waited in vain; what was said:", *said, *found]))

    async def look(self, verdict: str | None = None, node: str = "oslo") -> str:
        """One whole look of the reconciling worker; returns its verdict on the node."""
        ref = self.refs["reconcile"]

        async def is_idle() -> bool:
            own = ref.address.inspect()["actor"]
            assert isinstance(own, dict)
            return not own["running"] and own["next_in"] is not None and own["next_in"] > 1.0

        await self.until(is_idle)  # nodes that come up wake it as well
        before = _iterations(ref)
        ref.tell(WakeUp())

        async def is_over() -> bool:
            return _iterations(ref) > before

        await self.until(is_over)
        own = ref.address.inspect()["actor"]
        assert isinstance(own, dict)
        found = str(own["verdicts"].get(node))
        if verdict is not None:
            assert found == verdict, own
        return found

    async def listed(self, name: str) -> dict[str, NodeKey]:
        """What the node's agent itself has, by key id."""
        async with self.agents[name].client() as client:
            return {key.spec.key_id: key async for key in client.list_all()}

    async def state(self, name: str) -> NodeState:
        """The agent itself at a glance."""
        async with self.agents[name].client() as client:
            return await client.state()

    async def put_stranger(self, name: str, spec: KeySpec) -> None:
        """A key that somebody put on the node behind our back."""
        async with self.agents[name].client() as client:
            await client.put(spec)

    async def lose(self, name: str, *key_ids: str) -> None:
        """Keys that vanish from the node, without a trace, behind our back."""
        kept = [key.spec for key_id, key in (await self.listed(name)).items() if key_id not in key_ids]
        async with self.agents[name].client() as client:
            await client.sync(kept)

    async def at_rest(self) -> list[str]:
        """What the view of nodes complains about, and keys that are still on their way."""

        async def look(tx: Tx) -> list[str]:
            rows = await tx.fetch(
                """
                SELECT subject || ' ' || problem AS text FROM money_i10_nodes_have_the_active
                UNION ALL SELECT key_id || ' ' || activation_status FROM vpn_keys
                WHERE activation_status NOT IN ('active', 'removed')
                """
            )
            return [row["text"] for row in rows]

        return await self.pool.pool.run("test", look)


def _iterations(ref: Ref) -> int:
    own = ref.address.inspect()["actor"]
    assert isinstance(own, dict)
    return int(own["iterations"])


@asynccontextmanager
async def node_harness(
    dsn: str, directory: Path, *, database: DatabaseSettings | None = None
) -> AsyncIterator[NodeHarness]:
    """A pool on a real database; agents and actors are started by the test and end with the block."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(pool_harness(dsn, wakes=WORKERS, database=database))
        assert pool.ref.name == POOL
        harness = NodeHarness(pool, directory, stack)
        yield harness
        await pool.system.stop_all()
