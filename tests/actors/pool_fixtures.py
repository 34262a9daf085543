"""A running pool on a real database, and holders of its connections, for the tests of the pool.

Pools run on the inline bridge, and fail if they cannot; the pool's own tests run on the plain one as well (`pool_bridge` in
conftest.py). ATLAS_TEST_BRIDGE=plain or =inline restricts every test to that one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Final, Literal, ParamSpec, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import attrs
import trio

from actors.pool.client import Pool, gate_of, pool_of
from actors.pool.events import PoolStatus
from actors.pool.pool import PoolActor
from actors.pool.settings import PoolSettings
from actors.pool.state import PoolState
from db.embedded import EmbeddedSettings
from db.settings import DatabaseSettings
from runtime import Actor, Context, Event, Ref
from runtime.config import Secret
from runtime.testing import ActorSystem, OnCrash, actor_system

E = TypeVar("E", bound=Event)
P = ParamSpec("P")
R = TypeVar("R")

POOL = "pool.main"

BridgeName: TypeAlias = Literal["inline", "plain"]
BRIDGES: Final[tuple[BridgeName, ...]] = ("inline", "plain")


def wanted_bridges() -> tuple[BridgeName, ...]:
    """The bridges on which the pool's own tests run. Raises ValueError if ATLAS_TEST_BRIDGE names none."""
    wanted = os.environ.get("ATLAS_TEST_BRIDGE")
    if wanted is None:
        return BRIDGES
    for bridge in BRIDGES:
        if bridge == wanted:
            return (bridge,)
    raise ValueError(f"ATLAS_TEST_BRIDGE is {wanted!r}; it is one of {', '.join(BRIDGES)}")


@attrs.define
class BridgeInUse:
    """Which bridge pools are asked to take at the moment, and which they took so far."""

    name: BridgeName = attrs.field(factory=lambda: wanted_bridges()[0])
    taken: Counter[str] = attrs.field(factory=Counter)


BRIDGE = BridgeInUse()


_CHANGES: WeakKeyDictionary[PoolState, trio.lowlevel.ParkingLot] = WeakKeyDictionary()
"""Tasks that wait for a pool to become full or to end."""


async def until_full(state: PoolState) -> bool:
    """Wait until every connection of a pool is idle (true), or until its incarnation has ended (false)."""
    changes = _changes_of(state)
    while len(state.idle) < state.size:
        if state.status is PoolStatus.CLOSED:
            return False
        await changes.park()
    return True


def _changes_of(state: PoolState) -> trio.lowlevel.ParkingLot:
    """The tasks to wake after each change that can make the pool full or end it; the pool itself knows nothing of it."""
    changes = _CHANGES.get(state)
    if changes is None:
        changes = _CHANGES[state] = trio.lowlevel.ParkingLot()
        for method in (state._to_idle, state.resize, state.close_all):
            vars(state)[method.__name__] = _and_wake(method, changes)
    return changes


def _and_wake(method: Callable[P, R], changes: trio.lowlevel.ParkingLot) -> Callable[P, R]:
    @wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        finally:
            changes.unpark_all()

    return wrapped


@attrs.define(eq=False)
class Holder(Actor):
    """Role: lends its context to a test. Owns nothing. On crash: loses nothing."""

    tell: Callable[[Context], None]

    async def on_start(self) -> None:
        self.tell(self.context)


@attrs.define(eq=False)
class PoolHarness:
    """A system with one pool in it."""

    system: ActorSystem
    ref: Ref
    pool: Pool
    """As a holder named "holder" sees it."""
    context: Context
    events: list[Event]

    @property
    def state(self) -> PoolState:
        """The state of the running incarnation."""
        state = gate_of(self.ref).state
        assert state is not None, "the pool is not running"
        return state

    async def until(self, state: PoolStatus = PoolStatus.UP) -> None:
        """Wait until the pool is in that state."""
        with trio.fail_after(60):
            while gate_of(self.ref).state is None or self.state.status is not state:
                await self._next_event()

    async def until_full(self) -> None:
        """Wait until every connection is idle: what must hold after every churn."""
        with trio.fail_after(60):
            while gate_of(self.ref).state is None or not await until_full(self.state):
                await self._next_event()

    async def until_event(self, kind: type[E]) -> E:
        """Wait for an event of this kind and return the first."""
        with trio.fail_after(60):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                await self._next_event()

    async def _next_event(self) -> None:
        happened = trio.Event()
        unsubscribe = self.system.services.events.subscribe(lambda _: happened.set())
        try:
            await happened.wait()
        finally:
            unsubscribe()

    async def holder(self, name: str) -> tuple[Ref, Pool]:
        """Another actor that uses the pool; the system may kill it."""
        contexts: list[Context] = []
        ref = await self.system.start(Holder(contexts.append), name=name, on_crash=OnCrash.STOP)
        return ref, pool_of(contexts[0], POOL)


@asynccontextmanager
async def pool_harness(
    dsn: str,
    settings: PoolSettings | None = None,
    *,
    on_crash: OnCrash = OnCrash.FAIL,
    wait: bool = True,
    wakes: tuple[str, ...] = (),
    database: DatabaseSettings | None = None,
    migrate: bool = False,
    may_fall_back: bool = False,
) -> AsyncIterator[PoolHarness]:
    """Start a pool and, unless told otherwise, wait until it is full."""
    settings = settings or PoolSettings(size=4)
    if settings.bridge == "auto" and not may_fall_back:
        settings = attrs.evolve(settings, bridge=BRIDGE.name)
    database = attrs.evolve(database or DatabaseSettings(purpose="test"), dsn=Secret(dsn))
    async with actor_system() as system:
        events: list[Event] = []
        system.services.events.subscribe(events.append)
        actor = PoolActor(database, settings, EmbeddedSettings(), migrate=migrate, wakes=wakes)
        ref = await system.start(actor, name=POOL, on_crash=on_crash)
        contexts: list[Context] = []
        await system.start(Holder(contexts.append), name="holder")
        harness = PoolHarness(system, ref, pool_of(contexts[0], POOL), contexts[0], events)
        if wait:
            await harness.until_full()
        try:
            yield harness
        finally:
            taken = system.address(ref).facts.get("bridge", "none")
            BRIDGE.taken[taken] += 1
        if settings.bridge != "auto":
            assert taken in (settings.bridge, "none"), f"asked for the {settings.bridge} bridge, got {taken}"


async def second_pool(harness: PoolHarness, dsn: str) -> PoolState:
    """Another pool beside it, `pool.other`, full."""
    database = DatabaseSettings(purpose="test", dsn=Secret(dsn))
    settings = PoolSettings(size=2, reserved=0, bridge=BRIDGE.name)
    ref = await harness.system.start(
        PoolActor(database, settings, EmbeddedSettings(), migrate=False), name="pool.other"
    )
    state = gate_of(ref).state
    assert state is not None
    with trio.fail_after(10):
        assert await until_full(state)
    return state
