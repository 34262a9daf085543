"""The whole tree, in this process, while the chaos monkey kills every actor of it at every message boundary.

PostgreSQL, the agent and Xray are real and die with their actors. One round is what the service is for: a customer buys,
goes live, is revoked and is cut.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import pytest
import trio

from actors.key_events import KeySettled
from actors.node_endpoint import Locate
from actors.node_messages import ChangeKeys, ListKeys, ReadKey, RestoreKeys
from db.customers import add_customer
from db.embedded import EmbeddedSettings, embedded_dsn
from db.lease_errors import DatabaseUnreachable, LeaseError
from db.money import Money
from db.purchases import record_manual_purchase
from db.session import open_session
from db.subscriptions import get_subscription, mark_revoked
from db.tx import Tx
from db.verify import verify
from runtime.chaos_monkey import ChaosMonkey
from runtime.config.loader import load
from runtime.errors import AskError
from runtime.events import Event
from runtime.message import Request, WakeUp
from runtime.system import System
from tests.e2e.stack import Stack, stack
from vpn.errors import NodeError

T = TypeVar("T")

SEED = int(os.environ.get("ATLAS_TEST_SEED", "20261123"))
KILLS = 60
CUSTOMERS_AT_ONCE = 3
SPARED = (
    # Passed only when a look at a node falls into a change of its keys.
    *(f"reconcile/{point}" for point in ("differs", "compared", "put back", "restored", "removing")),
    # Passed only when the actor starts, so never again once nothing else kills it.
    *("agent.local/task:*", "pool.main/task:*", "node.local/task:reach the node"),
)
ONE_CONNECTION = {"ATLAS__POOL__SIZE": "1", "ATLAS__POOL__RESERVED": "0"}
"So that requests for a lease have to queue, and the pool is asked by message."
WHOLE_TREE = (
    "postgres",
    "agent.local",
    "pool.main",
    "node.local",
    "activation",
    "fast_expiry",
    "reconcile",
    "canary",
    "healthcheck",
    "admin",
)


def fearless(here: Stack) -> Path:
    """The installation's configuration, in which nobody gives up, restarts are quick and the watchdog belongs to pytest."""
    path = here.home / "supervisor.toml"
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("give_up"):
            continue
        lines.append(line)
        if line.startswith("[actor."):
            lines += ['give_up = "never"', "backoff = { initial = 0.02, maximum = 0.1 }"]
    text = "\n".join(lines)
    path.write_text(f"{text}\n[watchdog]\nenabled = false\n")
    return path


@asynccontextmanager
async def running(here: Stack) -> AsyncIterator[System]:
    """The tree of the installation inside this process."""
    system = System(load(fearless(here), here.env), env=here.env)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(system.run)

        async def all_ready() -> bool:
            return all(name in system.addresses and system.addresses[name].readiness[0] for name in WHOLE_TREE)

        with trio.fail_after(60):
            await News(system).until(all_ready)
        yield system
        system.stop("the campaign is over")


@attrs.define
class News:
    """Tells when to look again: after every event of the system, those included that come during a look."""

    system: System
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def until(self, is_so: Callable[[], Awaitable[bool]]) -> None:
        """Return once `is_so` answers yes."""
        unsubscribe = self.system.services.events.subscribe(self._note)
        try:
            while True:
                changed = self._changed
                if await is_so():
                    return
                await changed.wait()
        finally:
            unsubscribe()

    def _note(self, _: Event) -> None:
        self._changed.set()
        self._changed = trio.Event()


@attrs.define
class Shop:
    """One customer after the other, each with the same charge until the database has taken it."""

    system: System
    dsn: str
    customers: int = 0

    async def round(self) -> None:
        """Some customers at once."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._locate)
            nursery.start_soon(self._reconcile)
            for _ in range(CUSTOMERS_AT_ONCE):
                self.customers += 1
                nursery.start_soon(self._serve, self.customers)

    async def _locate(self) -> None:
        """What a node's actor asks the agent's when it starts: asked in every round, whoever starts in it."""
        with contextlib.suppress(AskError):
            await self.system.registry.lookup("agent.local").ask(Locate(), within=5)

    async def _reconcile(self) -> None:
        """What is asked of a node's actor when it has drifted, and the workers that ask it every few minutes."""
        for worker in ("reconcile", "canary"):
            self.system.registry.lookup(worker).tell(WakeUp())
        await self._ask_node(ListKeys("", 10))
        await self._ask_node(ReadKey("k-unknown"))
        await self._ask_node(ChangeKeys(()))
        await self._ask_node(RestoreKeys(()))

    async def _ask_node(self, request: Request[T]) -> None:
        with contextlib.suppress(AskError, NodeError):
            await self.system.registry.lookup("node.local").ask(request, within=5)

    async def _serve(self, telegram_id: int) -> None:
        """A purchase that goes live and a revocation that takes it away, whatever dies meanwhile."""

        async def buy(tx: Tx) -> None:
            await add_customer(tx, telegram_id)
            await record_manual_purchase(tx, telegram_id, "basic", 30, "manual", f"c-{telegram_id}", Money(14900))

        async def revoke(tx: Tx) -> None:
            await mark_revoked(tx, telegram_id, actor="test")

        async def status(tx: Tx) -> str:
            found = await get_subscription(tx, telegram_id)
            assert found is not None
            assert found.key is not None
            return found.key.status

        with trio.move_on_after(60) as patience:
            await self._persist(buy)
            await News(self.system).until(lambda: self._is(status, "active"))
            await self._persist(revoke)
            await News(self.system).until(lambda: self._is(status, "removed"))
        if patience.cancelled_caught:
            raise AssertionError(
                f"customer {telegram_id} waits for ever; the system's last words:\n{self._last_words()}"
            )

    def _last_words(self) -> str:
        children = [f"{address.name}: {address.inspect()}" for address in self.system.addresses.values()]
        told = [f"{record.at:.3f} {record.event.line()}" for record in self.system.services.events.records(60)]
        return "\n".join([*told, *children])

    async def check(self) -> None:
        """The ledger is whole, and every customer paid once and got one entitlement."""

        async def look(tx: Tx) -> tuple[list[str], list[int]]:
            broken = [invariant.name for invariant in await verify(tx) if not invariant.holds]
            counts = await tx.fetchrow(
                """
                SELECT (SELECT count(*) FROM money_in) AS money_in,
                       (SELECT count(*) FROM journals WHERE kind = 'purchase') AS journals,
                       (SELECT count(*) FROM entitlement_events WHERE kind = 'grant') AS grants
                """
            )
            assert counts is not None
            return broken, [counts["money_in"], counts["journals"], counts["grants"]]

        broken, counts = await self._persist(look)
        assert broken == []
        assert counts == [self.customers] * 3

    async def _is(self, status: Callable[[Tx], Awaitable[str]], wanted: str) -> bool:
        return await self._persist(status) == wanted

    async def _persist(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        """What a shop does: repeat until the answer is known. Every function here may be repeated."""
        answers: list[T] = []

        async def try_once() -> bool:
            try:
                async with open_session(self.dsn, "atlas/test") as session:
                    answers.append(await session.run("shop", function, within=5.0))
            except (DatabaseUnreachable, LeaseError):
                return False
            return True

        await News(self.system).until(try_once)
        return answers[0]


async def test_every_actor_of_the_whole_tree_may_die_at_every_message_boundary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with stack(ONE_CONNECTION) as here, running(here) as system:
        dsn = embedded_dsn(EmbeddedSettings(data_dir=Path(here.env["ATLAS__EMBEDDED__DATA_DIR"])))
        shop = Shop(system, dsn)
        monkey = ChaosMonkey(
            system,
            seed=SEED,
            victims=[name for name in WHOLE_TREE if system.addresses[name].handled],  # the others have no boundary
            expect=[f"activation/{phase}" for phase in ("claimed", "applied", "confirmed")],
            spare=SPARED,
        )
        report = await monkey.run(shop.round, kills=KILLS, check=shop.check)
    settled = [event for event in system.services.events.recent() if isinstance(event, KeySettled)]
    assert settled
    with capsys.disabled():
        print(f"\n{report}")
