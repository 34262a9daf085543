"""One child a key: started at the first message for its key, stopped when it has idled, with nothing lost between."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from runtime.core.spawned import SpawnOptions, current_spawner
from runtime.errors import AtlasError, SpawnRefused, TooManyChildren
from runtime.message import Delivery, Message, Request

if TYPE_CHECKING:
    from runtime.core.actor import Actor
    from runtime.core.incarnation import Incarnation
    from runtime.core.spawned_address import SpawnedAddress

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Keyed(Generic[K]):
    """The children of one actor, by key. Made with `context.keyed`; ends with the incarnation that made it.

    Messages have to come through it: a ref to a child, which the child may give away, does not start the next one.
    A child that crashes is restarted as its options say, under the same key; one that was parked, or stopped by an operator,
    keeps its key, and what is sent to it is not delivered, until an operator restarts it.
    """

    def __init__(
        self,
        run: Incarnation,
        make: Callable[[K], Actor],
        idle: float,
        max_children: int,
        naming: Callable[[K], str],
        options: SpawnOptions,
    ) -> None:
        if not 0 < idle < math.inf:
            raise ValueError(f"idle must be a positive number of seconds, not {idle!r}")
        self._run = run
        self._make = make
        self._idle = idle
        self._max_children = max_children
        self._naming = naming
        self._options = options
        self._live: dict[K, SpawnedAddress] = {}
        self._checks: list[tuple[float, int, K, SpawnedAddress]] = []
        """When to look next whether one has idled."""
        self._tickets = itertools.count()
        self._sweeping = False
        self._spawner = current_spawner.get()

    def tell(self, key: K, message: Message) -> Delivery:
        """As Ref.tell, to the child of this key, which is started if there is none.

        FULL also where the actor has `max_children` already, DEAD also where it stops itself.
        """
        try:
            return self._address(key).mailbox.put(message)
        except TooManyChildren:
            return Delivery.FULL
        except SpawnRefused:
            return Delivery.DEAD

    async def send(self, key: K, message: Message) -> None:
        """As Ref.send. Raises SpawnRefused (TooManyChildren) as well."""
        await self._address(key).ref.send(message)

    async def ask(self, key: K, message: Request[R], *, within: float) -> R:
        """As Ref.ask. Raises SpawnRefused (TooManyChildren) as well, and ActorDead when the child does not start."""
        return await self._address(key).ref.ask(message, within=within)

    async def stop(self, key: K) -> None:
        """Stop the child of this key in order and wait until it is gone; at once if there is none."""
        address = self._live.pop(key, None)
        if address is not None and self._run.address.services.spawned.get(address.name) is address:
            await address.supervisor.begin_stop(address.name, None)()

    def __contains__(self, key: object) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._live))

    def __len__(self) -> int:
        return len(self._live)

    def _address(self, key: K) -> SpawnedAddress:
        address = self._live.get(key)
        if address is not None:
            return address
        run, spawner = self._run, self._spawner
        if len(self._live) >= self._max_children:
            raise TooManyChildren(
                f"{run.address.name!r} has children for {len(self._live)} keys, as many as max_children allows"
            )
        if spawner is None:
            raise SpawnRefused(
                f"{run.address.name!r} runs in no supervision tree: there is no supervisor for what it spawns"
            )
        run.children()  # refuses when the actor stops
        address = spawner.new_address(
            run.address.services,
            run.address.name,
            self._naming(key),
            self._make(key),
            self._options,
            outlives=False,
        )
        self._live[key] = address
        run.start_task(self._start, (key, address), f"start {address.name}", inherit_deadline=False)
        return address

    async def _start(self, key: K, address: SpawnedAddress) -> None:
        spawned = self._run.address.services.spawned
        while (before := spawned.get(address.name)) is not None and before.is_leaving:
            # One of the same key that has idled, and whose last moments this one waits for.
            await before.gone.wait()
        if self._live.get(key) is not address:
            address.on_final("it was stopped before it started")
            return
        address.when_released = lambda: self._forget(key, address)
        try:
            await self._run.children().start(address)
        except AtlasError as error:
            # Its supervisor has told of it; who waits for it learns that it will not come.
            self._forget(key, address)
            address.on_final(f"it did not start: {error}")
            return
        self._check_later(key, address, trio.current_time() + self._idle)
        if not self._sweeping:
            self._sweeping = True
            self._run.start_task(self._stop_idle_ones, (), "idling", inherit_deadline=False)

    def _forget(self, key: K, address: SpawnedAddress) -> None:
        if self._live.get(key) is address:
            del self._live[key]

    def _check_later(self, key: K, address: SpawnedAddress, at: float) -> None:
        heapq.heappush(self._checks, (at, next(self._tickets), key, address))

    async def _stop_idle_ones(self) -> None:
        """Until none is left. All children idle for equally long, so one that comes later is looked at later."""
        while self._checks:
            await trio.sleep_until(self._checks[0][0])
            now = trio.current_time()
            while self._checks and self._checks[0][0] <= now:
                _, _, key, address = heapq.heappop(self._checks)
                if self._live.get(key) is address:
                    self._look(key, address, now)
        self._sweeping = False

    def _look(self, key: K, address: SpawnedAddress, now: float) -> None:
        since = address.idle_since()
        if since is None or since + self._idle > now:
            self._check_later(key, address, now + self._idle if since is None else since + self._idle)
            return
        # From here to the end without an await: what is sent for the key from now on goes to the next one.
        del self._live[key]
        address.is_leaving = True
        address.supervisor.begin_stop(address.name, None)
