"""Actors that other actors spawn: what is known of each, by name, and what an actor may do with its own.

Who supervises them is `runtime.supervision.spawning`, which the core does not know: it finds its way in by `current_spawner`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from runtime.child import ChildSpec, GiveUp, Restart, StopReason, as_give_up, as_restart
from runtime.core.mailbox import DEFAULT_CAPACITY, Overflow
from runtime.restart_limits import Backoff

if TYPE_CHECKING:
    import trio

    from runtime.core.actor import Actor
    from runtime.core.incarnation import Incarnation
    from runtime.core.ref import Ref
    from runtime.core.services import Services
    from runtime.core.spawned_address import SpawnedAddress

DEFAULT_MAX_CHILDREN: Final = 1000
"""How many children an actor may have at once unless it says otherwise."""
SPAWN_KILL_GRACE: Final = 0.5
"""Seconds that a cancelled child has to end: less than its parent has, so that a killed parent does not leave first."""


@attrs.frozen
class SpawnOptions:
    """How a spawned actor is looked after. All times in seconds. Raises ValueError for what makes no sense."""

    restart: Restart = attrs.field(default=Restart.TRANSIENT, converter=as_restart)
    give_up: GiveUp = attrs.field(default=GiveUp.PARK, converter=as_give_up)
    backoff: Backoff = attrs.field(factory=Backoff)
    shutdown: float = 5.0
    kill_grace: float = SPAWN_KILL_GRACE
    start_timeout: float = 10.0
    capacity: int = DEFAULT_CAPACITY
    overflow: Overflow = attrs.field(default=Overflow.REFUSE, converter=Overflow)

    def spec(self, address: SpawnedAddress) -> ChildSpec:
        """The spec of one child."""
        return ChildSpec(
            name=address.name,
            start=lambda: address,
            restart=self.restart,
            give_up=self.give_up,
            backoff=self.backoff,
            shutdown=self.shutdown,
            kill_grace=self.kill_grace,
            start_timeout=self.start_timeout,
        )


class ChildSupervisor(Protocol):
    """What supervises the children of one incarnation, or those that outlive theirs."""

    async def run(self, incarnation: int = 1, *, task_status: trio.TaskStatus[None] = ...) -> None:
        """Look after them until asked to stop. Raises what a supervisor raises."""
        ...

    def request_stop(self, reason: StopReason) -> None:
        """Stop all of them in order."""
        ...

    async def start(self, address: SpawnedAddress) -> Ref:
        """Start a child; returns once it serves. Raises SpawnRefused and ChildStartFailed; nothing is then left of it."""
        ...

    def begin_stop(self, name: str, within: float | None) -> Callable[[], Awaitable[None]]:
        """Ask a child to stop for good, now. Returns what to await until it is down and forgotten."""
        ...


class Spawner(Protocol):
    """Where spawned actors and their supervisors come from."""

    def new_address(
        self, services: Services, parent: str, name: str, actor: Actor, options: SpawnOptions, *, outlives: bool
    ) -> SpawnedAddress:
        """An address that nobody knows yet. Each incarnation gets a fresh copy of `actor`'s start arguments.

        Raises ValueError for a name that is none.
        """
        ...

    def for_children_of(self, run: Incarnation) -> ChildSupervisor:
        """A new one, for the children of an incarnation; whoever asks runs it."""
        ...

    async def for_outliving(self, services: Services) -> ChildSupervisor:
        """The one for children that outlive their parents; it runs. Raises SpawnRefused where there can be none."""
        ...


current_spawner: ContextVar[Spawner | None] = ContextVar("atlas_spawner", default=None)
"""Set inside a supervision tree."""


class SpawnedActors:
    """All spawned actors of one system, by name, and what those that are gone have counted."""

    __slots__ = ("_by_name", "_by_parent", "_numbers", "past")

    def __init__(self) -> None:
        self._by_name: dict[str, SpawnedAddress] = {}
        self._by_parent: dict[str, dict[str, SpawnedAddress]] = {}
        self._numbers = itertools.count(1)
        self.past: Counter[tuple[str, str]] = Counter()
        """(metric label, figure) -> the sum over those that are gone."""

    def add(self, address: SpawnedAddress) -> None:
        """Make one known."""
        self._by_name[address.name] = address
        self._by_parent.setdefault(address.parent, {})[address.name] = address

    def remove(self, address: SpawnedAddress) -> None:
        """Forget one, but not what it counted. Harmless when repeated."""
        if self._by_name.get(address.name) is not address:
            return
        del self._by_name[address.name]
        siblings = self._by_parent[address.parent]
        del siblings[address.name]
        if not siblings:
            del self._by_parent[address.parent]
        for figure, value in (
            ("restarts", address.restarts),
            ("dropped", address.mailbox.dropped),
            ("expired", address.expired),
        ):
            if value:
                self.past[address.metric_label, figure] += value

    def get(self, name: str) -> SpawnedAddress | None:
        """One by its name."""
        return self._by_name.get(name)

    def children_of(self, parent: str) -> list[SpawnedAddress]:
        """The children of an actor in the order in which they were spawned, those included that outlive it."""
        return list(self._by_parent.get(parent, {}).values())

    def count(self, parent: str) -> int:
        """How many children an actor has."""
        return len(self._by_parent.get(parent, ()))

    def next_name(self, stem: str) -> str:
        """A name that was not given before."""
        return f"{stem}-{next(self._numbers)}"

    def __iter__(self) -> Iterator[SpawnedAddress]:
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)
