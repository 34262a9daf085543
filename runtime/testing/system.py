"""A system for one test: runs actors without a supervision tree, on trio's own clock or a MockClock."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from runtime.child import Exit, ExitReason, StopCause, StopReason
from runtime.core.actor import Actor
from runtime.core.address import Address
from runtime.core.mailbox import DEFAULT_CAPACITY, Overflow
from runtime.core.ref import AddressState, Ref
from runtime.core.services import Services
from runtime.core.spawned import current_spawner
from runtime.correlation import correlation_id
from runtime.errors import Ignore, unwrap_group
from runtime.supervision.child_run import TreeNursery, enter_tree, fatal_in, open_tree_nursery
from runtime.supervision.spawning import TREE_SPAWNER
from runtime.supervision.supervisor import Supervisor, inherited_emit
from runtime.testing.actors import Crash, Echo, Failable, FailableActor, Hang, Probe, ProbeActor, Swallow
from runtime.testing.chaos import Boundary, ChaosFailed, ChaosMonkey, ChaosReport, Kill
from runtime.testing.event_assertions import Happened, assert_events, happened
from runtime.testing.virtual_time import run_virtual, seeded

__all__ = [
    "ActorSystem",
    "Boundary",
    "ChaosFailed",
    "ChaosMonkey",
    "ChaosReport",
    "Crash",
    "Echo",
    "Failable",
    "FailableActor",
    "Hang",
    "Happened",
    "Kill",
    "OnCrash",
    "Probe",
    "Swallow",
    "actor_system",
    "assert_events",
    "happened",
    "run_virtual",
    "seeded",
]


class OnCrash(enum.Enum):
    """What a test's system does when an actor crashes."""

    FAIL = "fail"
    """The crash fails the test."""
    RESTART = "restart"
    """A new incarnation at once."""
    STOP = "stop"
    """The actor is gone for good."""


@attrs.define(eq=False)
class _Runner:
    address: Address
    on_crash: OnCrash
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    stop_asked: bool = False
    exits: list[Exit] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)
    is_final: bool = False

    def ended(
        self, incarnation: int, reason: ExitReason, error: BaseException | None, lived: float, *, restarts: bool
    ) -> bool:
        """Note the end of an incarnation and tell all that wait for it; whether another follows: if `restarts`, after an abnormal
        end."""
        address = self.address
        record = Exit(address.name, incarnation, reason, error, address.last_activity().message, lived)
        self.exits.append(record)
        address.on_exit(record)
        restarts = restarts and record.abnormal
        address.on_decided(restarts=restarts)
        if not restarts:
            address.on_final(reason.value)
            self.is_final = True
        self.notify()
        return restarts

    def notify(self) -> None:
        """Wake all tasks that wait for the next exit or start."""
        self.changed.set()
        self.changed = trio.Event()


class ActorSystem:
    """Runs actors without a supervision tree. Made by `actor_system`."""

    def __init__(self, nursery: trio.Nursery, services: Services, tree: TreeNursery | None = None) -> None:
        self.services = services
        self._nursery = nursery
        self._tree = tree
        self._runners: dict[str, _Runner] = {}

    async def start(
        self,
        actor: Actor,
        *,
        name: str | None = None,
        on_crash: OnCrash = OnCrash.FAIL,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow = Overflow.REFUSE,
    ) -> Ref:
        """Start an actor and wait until it serves; raises what its start raised.

        `name` defaults to the class's name in lower case; after a start that failed it is free again. Each incarnation gets a
        fresh copy of `actor`'s start arguments.
        """
        address = Address(
            name or type(actor).__name__.lower(),
            lambda: attrs.evolve(actor),
            self.services,
            capacity=capacity,
            overflow=overflow,
        )
        self.services.registry.add(address)
        runner = self._runners[address.name] = _Runner(address, on_crash)
        try:
            await self._nursery.start(self._run, runner)
        except BaseException as error:
            if not isinstance(unwrap_group(error), Ignore):  # who declined is known, as in a real system
                self.services.forget(address)
                del self._runners[address.name]
            raise
        return address.ref

    async def probe(self, name: str = "probe") -> Probe:
        """Start a Probe."""
        probe = Probe()
        probe.ref = await self.start(ProbeActor(probe), name=name)
        return probe

    async def _run(self, runner: _Runner, *, task_status: trio.TaskStatus[None]) -> None:
        # As in a supervision tree: what the actor spawns is supervised, and told of on the bus.
        if self._tree is not None:
            enter_tree(self._tree)
            current_spawner.set(TREE_SPAWNER)
        inherited_emit.set(self.services.events.emit)
        address, incarnation = runner.address, 0
        status = _Started(runner, task_status)
        del task_status  # it holds the nursery of the start, which is long gone when the actor still runs
        while True:
            incarnation += 1
            runner.scope = trio.CancelScope()
            began = trio.current_time()
            error: BaseException | None = None
            try:
                with runner.scope:
                    try:
                        await address.run(incarnation, task_status=status)
                    except Exception as raised:  # noqa: BLE001  # judged below, after the address was told
                        error = raised
            except BaseException:
                # The test itself is cancelled: those that wait for this end, the system's own end first of all, are told.
                runner.ended(incarnation, ExitReason.KILLED, None, trio.current_time() - began, restarts=False)
                raise
            reason = _classify(runner, error, served=status.served)
            fatal = fatal_in(error)
            may_restart = (
                runner.on_crash is OnCrash.RESTART and status.served and not runner.stop_asked and fatal is None
            )
            restarts = runner.ended(incarnation, reason, error, trio.current_time() - began, restarts=may_restart)
            if restarts:
                status = _Started(runner, None)
                continue
            if error is not None and (not status.served or runner.on_crash is OnCrash.FAIL or fatal is not None):
                raise error
            return

    def address(self, ref: Ref | str) -> Address:
        """The address behind a reference or a name, with everything that can be seen of it."""
        return self.services.registry.find(ref if isinstance(ref, str) else ref.name)

    def exits(self, ref: Ref) -> list[Exit]:
        """How this actor's incarnations have ended so far."""
        return list(self._runners[ref.name].exits)

    async def exited(self, ref: Ref, incarnation: int = 1) -> Exit:
        """Wait for the end of an incarnation."""
        runner = self._runners[ref.name]
        while len(runner.exits) < incarnation:
            await runner.changed.wait()
        return runner.exits[incarnation - 1]

    async def up(self, ref: Ref, incarnation: int = 1) -> None:
        """Wait until that incarnation, or a later one, serves."""
        runner = self._runners[ref.name]
        while ref.incarnation < incarnation or ref.address.state is not AddressState.UP:
            await runner.changed.wait()

    async def stop(self, ref: Ref, *, within: float = 5.0) -> Exit:
        """Stop an actor in order, for good; cancel it after `within` seconds. Returns how it ended."""
        runner = self._runners[ref.name]
        runner.stop_asked = True
        reason = StopReason(StopCause.TERMINATED, "stopped by the test", trio.current_time() + within)
        ref.address.request_stop(reason)
        with trio.move_on_at(reason.deadline):
            while not runner.is_final:
                await runner.changed.wait()
        if not runner.is_final:
            return await self.kill(ref)
        return runner.exits[-1]

    async def kill(self, ref: Ref) -> Exit:
        """Interrupt the running incarnation; what follows is what follows a crash, except that no test fails of it."""
        runner = self._runners[ref.name]
        seen = len(runner.exits)
        runner.scope.cancel(reason="killed by the test")
        return await self.exited(ref, seen + 1)

    async def stop_all(self) -> None:
        """Stop all actors, the last one started first."""
        for runner in reversed(tuple(self._runners.values())):
            if not runner.is_final:
                await self.stop(runner.address.ref)


class _Started:
    """The task status handed to an incarnation: notes whether it served, and passes that on for the first one."""

    def __init__(self, runner: _Runner, outer: trio.TaskStatus[None] | None) -> None:
        self.served = False
        self._runner = runner
        self._outer = outer

    def started(self, value: None = None) -> None:
        self.served = True
        self._runner.notify()
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.started(value)


def _classify(runner: _Runner, error: BaseException | None, *, served: bool) -> ExitReason:
    if runner.scope.cancelled_caught:
        return ExitReason.KILLED
    if isinstance(error, Ignore):
        return ExitReason.IGNORED
    if error is not None:
        return ExitReason.CRASHED if served else ExitReason.START_FAILED
    return ExitReason.SHUTDOWN if runner.stop_asked else ExitReason.NORMAL


@asynccontextmanager
async def actor_system(services: Services | None = None) -> AsyncIterator[ActorSystem]:
    """A system for one test. Leaving it stops every actor; an actor that crashed unexpectedly, or by Fatal, fails the test."""
    correlation_id.set("")
    chosen = services or Services()
    root = Supervisor("test", [], emit=chosen.events.emit)
    async with trio.open_nursery() as nursery, open_tree_nursery() as tree:
        await nursery.start(_run_root, root)
        system = ActorSystem(nursery, chosen, tree)
        try:
            yield system
        finally:
            with trio.CancelScope(shield=True):
                await system.stop_all()
                root.request_stop(StopReason(StopCause.SHUTDOWN, "the test ends", trio.current_time() + 5.0))


async def _run_root(root: Supervisor, *, task_status: trio.TaskStatus[None]) -> None:
    await root.run(task_status=task_status)
