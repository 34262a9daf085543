"""The four trips of `tools/trips.py`: what is set up for each, and from which moment to which it is counted.

* `tell`: from telling an actor's reference a message until its handler begins.
* `lease`: from asking a full pool for a connection until it is given back, with one `SELECT 1` in between; the real pool actor
  on a real PostgreSQL.
* `crash`: from the raise in a handler until the next incarnation handles the message that waited in the mailbox.
* `purchase`: from calling the operation of `atlas buy` in a transaction until the event that the key is active. It is recorded in
  a real PostgreSQL, whose NOTIFY wakes the worker; put on a real node and read back there; confirmed. The node's agent and its
  Xray are processes of their own: of them, only what this process does to speak to them is counted.

`tell` and `crash` run in the system of `atlas run`, in a tree of one actor; `lease` and `purchase` in the system that tests use,
so that `runtime.testing.system` stands in their paths where the supervisor would.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio
import trio.testing

# Everything that is known here of the tree: where a name moves, this list is what changes.
# isort: off
from runtime import Actor, Event, Message, Ref, WakeUp, handler
from runtime import log
from runtime.config import load_text
from runtime import System
from actors.keys.events import KeySettled
from db.customers import add_customer
from db.money import Money
from db.billing.purchases import record_manual_purchase
from benchmarks.leases import server
from tests.actors.node_fixtures import NEVER, node_harness
from tests.actors.pool_fixtures import pool_harness

# isort: on
from tools.moves import MoveCounter

Trip: TypeAlias = Callable[[], Awaitable[None]]
"""Makes the trip once. When it returns, the counter has its trace."""

_QUIET = 0.05
"""Seconds without anything to do after which everything has been done."""
_PRICE = Money(14900)
_TREE = """
[supervisor]
intensity = 1000000
[watchdog]
enabled = false
[control]
socket = "{directory}/control.sock"
[actor.counted]
actor = "{here}:Counted"
backoff = {{ initial = 0, maximum = 0, jitter = 0 }}
give_up = "never"
"""


class CrashOnPurpose(Exception):
    """What the counted actor dies of."""


@attrs.frozen(eq=False)
class Crash(Message):
    """Begin to count, and crash."""

    counter: MoveCounter


@attrs.frozen(eq=False)
class Finish(Message):
    """Stop counting."""

    counter: MoveCounter
    handled: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Counted(Actor):
    """Role: crashes when told to, and says when it handles something. Owns nothing. On crash: that is what is counted."""

    @handler
    async def crash(self, message: Crash) -> None:
        """Raise."""
        message.counter.begin()
        raise CrashOnPurpose

    @handler
    async def finish(self, message: Finish) -> None:
        """The end of the trip."""
        message.counter.end()
        message.handled.set()


@attrs.define(eq=False)
class Bystander(Actor):
    """Role: is woken by what happens on the trip, as another actor is in production; what it does then is not counted. Owns
    nothing. On crash: loses nothing."""

    counter: MoveCounter

    @handler
    async def wake_up(self, _: WakeUp) -> None:
        """Do nothing."""
        self.counter.ignore_caller()


@contextlib.asynccontextmanager
async def tell(counter: MoveCounter) -> AsyncIterator[Trip]:
    """tell → handler."""
    async with _running_system(counter) as ref:

        async def trip() -> None:
            finish = Finish(counter)
            counter.begin()
            ref.tell(finish)
            await finish.handled.wait()

        yield trip


@contextlib.asynccontextmanager
async def lease(counter: MoveCounter) -> AsyncIterator[Trip]:
    """lease → release."""
    with server() as cluster:
        async with pool_harness(cluster.dsn()) as harness:

            async def trip() -> None:
                counter.begin()
                async with harness.pool.lease("trip") as lease:
                    await lease.fetchval("SELECT 1")
                counter.end()

            yield trip


@contextlib.asynccontextmanager
async def crash(counter: MoveCounter) -> AsyncIterator[Trip]:
    """crash → restarted."""
    async with _running_system(counter) as ref:

        async def trip() -> None:
            finish = Finish(counter)
            ref.tell(Crash(counter))
            ref.tell(finish)
            await finish.handled.wait()

        yield trip


@contextlib.asynccontextmanager
async def purchase(counter: MoveCounter) -> AsyncIterator[Trip]:
    """purchase → key active."""
    with server() as cluster, tempfile.TemporaryDirectory() as directory, _running_log():
        template = await trio.to_thread.run_sync(cluster.template)
        async with node_harness(cluster.dsn(cluster.create_database(template)), Path(directory)) as harness:
            await harness.pool.system.start(Bystander(counter), name="notifications")
            await harness.activation()
            await harness.node("oslo", probe=NEVER)
            is_active = trio.Event()
            customer = 0

            def note(event: Event) -> None:
                if isinstance(event, KeySettled):
                    counter.end()
                    is_active.set()

            async def trip() -> None:
                nonlocal is_active, customer
                is_active, customer = trio.Event(), customer + 1
                await harness.run(add_customer, customer)
                await trio.testing.wait_all_tasks_blocked(_QUIET)
                counter.begin()
                await harness.run(record_manual_purchase, customer, "basic", 30, "trips", f"charge-{customer}", _PRICE)
                await is_active.wait()
                await trio.testing.wait_all_tasks_blocked(_QUIET)

            unsubscribe = harness.pool.system.services.events.subscribe(note)
            yield trip
            unsubscribe()


TRIPS: Final[dict[str, Callable[[MoveCounter], AbstractAsyncContextManager[Trip]]]] = {
    "tell": tell,
    "lease": lease,
    "crash": crash,
    "purchase": purchase,
}


@contextlib.asynccontextmanager
async def _running_system(counter: MoveCounter) -> AsyncIterator[Ref]:
    """The whole system around one actor that serves; every restart is immediate."""
    with tempfile.TemporaryDirectory() as directory, _running_log():
        system = System(load_text(_TREE.format(directory=directory, here=__name__)))
        ref = system.registry.lookup("counted")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(system.run)
            finish = Finish(counter)
            ref.tell(finish)
            await finish.handled.wait()
            yield ref
            system.stop("everything is counted")


@contextlib.contextmanager
def _running_log() -> Iterator[None]:
    """The process's log as in production, but to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    log.start(out=nowhere, err=nowhere)
    try:
        yield
    finally:
        log.stop()
        os.close(nowhere)
