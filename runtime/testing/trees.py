"""A supervised tree in a test: a group of actors with a strategy, or a whole configuration file."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from runtime.child import ChildSpec, StopCause, StopReason, Strategy
from runtime.config.config import Config
from runtime.config.loader import load, load_text
from runtime.core.actor import Actor
from runtime.core.address import Address
from runtime.core.ref import Ref
from runtime.core.services import Services
from runtime.errors import unwrap_group
from runtime.events import Event, EventBus
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.supervisor import Supervisor
from runtime.system.system import System


class RunningTree:
    """A tree that runs: its actors by name, and what happened. Made by `running_group` and `running_tree`."""

    def __init__(self, services: Services, system: System | None = None) -> None:
        self.services = services
        self.system = system
        """With its `operations`: status, inspect, kill, pause and the others. None for a group."""
        self.events: list[Event] = []
        """All so far, oldest first."""
        self._more = trio.Event()
        services.events.subscribe(self._note)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()
        self._more = trio.Event()

    def ref(self, name: str) -> Ref:
        """An actor by its name, spawned ones included. Raises UnknownActor with the nearest name."""
        return self.services.registry.lookup(name)

    async def up(self, name: str, incarnation: int = 1) -> Ref:
        """Wait until that incarnation of an actor, or a later one, serves; a spawned one may not exist yet."""
        while name not in self.services.registry or not self._serves(self.ref(name), incarnation):
            await self._more.wait()
        return self.ref(name)

    @staticmethod
    def _serves(ref: Ref, incarnation: int) -> bool:
        return ref.incarnation >= incarnation and ref.address.readiness[0]


@asynccontextmanager
async def running_group(
    *actors: tuple[str, Actor],
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    specs: Sequence[ChildSpec] = (),
    intensity: int = 5,
    period: float = 60.0,
) -> AsyncIterator[RunningTree]:
    """Run `(name, actor)` pairs under a supervisor, in that order, restarted without a backoff; stopped at the end.

    `specs` adds children with settings of their own. A group that gives up fails the test with what ended it.
    """
    tree = RunningTree(Services(events=EventBus()))
    for name, actor in actors:
        address = Address(name, functools.partial(attrs.evolve, actor), tree.services)
        tree.services.registry.add(address)
        specs = [*specs, ChildSpec(name, functools.partial(_itself, address), backoff=NO_BACKOFF)]
    root = Supervisor("test", specs, strategy, intensity, period, emit=tree.services.events.emit)
    async with _running(root):
        yield tree


@asynccontextmanager
async def running_tree(config: Path | str | Config) -> AsyncIterator[RunningTree]:
    """Run the tree of a configuration: a path of a TOML file, its text, or a Config; stopped in order at the end.

    All of `atlas run` but its process: no control socket, no signals, no watchdog. Raises ConfigErrors, and what ends the tree.
    """
    if isinstance(config, Path):
        config = load(config)
    elif isinstance(config, str):
        config = load_text(config)
    system = System(config)
    tree = RunningTree(system.services, system)
    async with _running(system.root):
        system.is_up = True
        yield tree


def _itself(address: Address) -> Address:
    return address


@asynccontextmanager
async def _running(root: Supervisor) -> AsyncIterator[None]:
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_run, root)
            try:
                yield
            finally:
                root.request_stop(StopReason(StopCause.SHUTDOWN, "the test ends"))
    except BaseExceptionGroup as group:
        error = unwrap_group(group)
        if error is group:
            raise
    if error is not None:
        raise error


async def _run(root: Supervisor, *, task_status: trio.TaskStatus[None]) -> None:
    await root.run(task_status=task_status)
