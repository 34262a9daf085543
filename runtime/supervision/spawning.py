"""Supervision of actors that other actors spawn: one supervisor for the children of each incarnation that has any, and
one, below the root, for those that outlive their parents.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from runtime.child import ChildSpec, GiveUp
from runtime.core.actor import Actor
from runtime.core.incarnation import Incarnation
from runtime.core.ref import Ref
from runtime.core.services import Services
from runtime.core.spawned import SpawnOptions
from runtime.core.spawned_address import SpawnedAddress, new_address
from runtime.errors import NameTaken, SpawnRefused
from runtime.supervision import administration
from runtime.supervision.child_run import TreeNursery, current_tree_nursery
from runtime.supervision.children import ChildRecord
from runtime.supervision.errors import AdministrationError
from runtime.supervision.outcome import SupervisorFlags
from runtime.supervision.supervisor import Supervisor, _SupervisorBase

OUTLIVING = "(outliving)"
"""The supervisor, below the root, of the actors that outlive those that spawned them."""
INTENSITY = 5
PERIOD = 60.0
"""Seconds. A child with `give_up = "park"` is parked after more than so many restarts within them; those that escalate end
their parent together."""


class SpawnSupervisor(_SupervisorBase):
    """Looks after spawned actors: each alone, forgotten when it ends for good, all stopped at once."""

    def __init__(self, name: str, services: Services) -> None:
        settings = SupervisorFlags(intensity=INTENSITY, period=PERIOD, spawned=True)
        super().__init__(name, (), settings, emit=None, chance=random.random)
        self._services = services
        self._serving = trio.Event()
        self._own: dict[str, SpawnedAddress] = {}

    async def start(self, address: SpawnedAddress) -> Ref:
        """See ChildSupervisor.start. A caller that is cancelled leaves no child behind."""
        services, name = self._services, address.name
        if name in services.registry:
            known = services.registry.find(name)
            raise NameTaken(
                f"an actor named {name!r} exists already ({known.state.value}); a name is free when it is gone"
            )
        address.supervisor = self
        self._own[name] = address
        services.registry.add(address)
        services.spawned.add(address)
        try:
            number = await self._start(address)
        except BaseException as error:
            self._call_off(address)
            if isinstance(error, AdministrationError):
                raise SpawnRefused(f"{name} was not spawned: {error}") from None
            raise
        if number is None:
            end = address.declined or "it said no reason"
            raise SpawnRefused(f"{name} declined to run: {end}")
        return address.ref

    async def _start(self, address: SpawnedAddress) -> int | None:
        await self._serving.wait()
        loop = self._running(address.name)
        administration.refuse_start(loop, address.name)
        return await administration.start(loop, self._make_record(address.spec, static=False)).wait()

    def _call_off(self, address: SpawnedAddress) -> None:
        loop = self._loop
        if loop is not None and not loop.ended and address.name in loop.children:
            # It is in the middle of its start, and need not end that in order.
            administration.terminate(loop, address.name, forget=True)
            if address.name in loop.children:
                loop.control.cancel(loop.children[address.name], "the call that spawned it was cancelled")
        else:
            self._release(address)

    def begin_stop(self, name: str, within: float | None = None) -> Callable[[], Awaitable[None]]:
        """See ChildSupervisor.begin_stop."""
        loop = self._running(name)
        reply = administration.terminate(loop, name, forget=True)
        record = loop.children.get(name)
        if record is not None and record.is_alive:
            budget = float("inf") if within is None else trio.current_time() + within
            loop.ask_to_terminate(record, "stopped by its parent", budget)

        async def wait() -> None:
            await reply.wait()

        return wait

    async def _run_loop(self, tree_nursery: TreeNursery, task_status: trio.TaskStatus[None]) -> None:
        class Serving:
            def started(_, value: None = None) -> None:  # noqa: N805  # the supervisor is `self` here
                self._serving.set()
                task_status.started()

        try:
            await super()._run_loop(tree_nursery, Serving())
        finally:
            self._serving.set()  # who still waits is told that it does not run
            left = {report.name.partition("/")[0] for report in self._unstopped}
            for address in tuple(self._own.values()):
                if address.name in left:
                    # Its task still runs: until that ends, no other may have the name.
                    address.when_ended = lambda address=address: self._release(address)
                else:
                    self._release(address)

    def _forgotten(self, record: ChildRecord) -> None:
        address = self._own.get(record.name)
        if address is not None and address is record.child:
            self._release(address)

    def _release(self, address: SpawnedAddress) -> None:
        services = self._services
        if self._own.get(address.name) is address:
            del self._own[address.name]
        if address.name in services.registry and services.registry.find(address.name) is address:
            services.registry.remove(address.name)
        services.spawned.remove(address)
        services.beats.forget(address.name)
        address.released()


class TreeSpawner:
    """Spawns in the tree of the calling task."""

    def new_address(
        self, services: Services, parent: str, name: str, actor: Actor, options: SpawnOptions, *, outlives: bool
    ) -> SpawnedAddress:
        """See Spawner."""
        return new_address(services, parent, name, actor, options, outlives=outlives)

    def for_children_of(self, run: Incarnation) -> SpawnSupervisor:
        """See Spawner."""
        return SpawnSupervisor(f"{run.address.name}.*", run.address.services)

    async def for_outliving(self, services: Services) -> SpawnSupervisor:
        """See Spawner. Made at the first call, as the last child of the root: it stops before all others."""
        tree = current_tree_nursery()
        root = None if tree is None else tree.root
        if tree is None or not isinstance(root, Supervisor):
            raise SpawnRefused(
                "there is no supervisor of named children above: no actor can outlive the one that spawns it"
            )
        async with tree.outliving_lock:
            host = tree.outliving
            if not isinstance(host, SpawnSupervisor):
                host = SpawnSupervisor(OUTLIVING, services)
                spec = ChildSpec(OUTLIVING, lambda: host, kind="supervisor", give_up=GiveUp.NEVER)
                try:
                    await root.start_child(spec)
                except AdministrationError as error:
                    raise SpawnRefused(f"no actor can be spawned that outlives its parent: {error}") from None
                tree.outliving = host
        return host


TREE_SPAWNER = TreeSpawner()
