"""The one misbehaving child that drives all supervision tests, and the harness it lives in.

It serves, fails, hangs, swallows cancellation, declines, starts badly: as told, incarnation by incarnation. It
detonates if two of its incarnations are ever inside `run` at once, and the harness fails the test then.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio.testing import wait_all_tasks_blocked as settle

from runtime.child import Activity, Child, ChildSpec, Exit, ExitReason, StopCause, StopReason
from runtime.errors import Ignore
from runtime.events import Event
from runtime.supervision.supervisor import DynamicSupervisor, Supervisor

__all__ = ["Harness", "Misbehaving", "Start", "Stop", "settle"]


class Start(enum.Enum):
    """How an incarnation starts."""

    SERVE = enum.auto()
    FAIL = enum.auto()
    HANG = enum.auto()
    SWALLOW = enum.auto()
    """Hangs and swallows cancellation until it is released."""
    RETURN = enum.auto()
    """Returns without having served."""
    IGNORE = enum.auto()
    SERVE_AND_CRASH = enum.auto()
    """Crashes in the same step in which it reports that it serves."""


class Stop(enum.Enum):
    """What an incarnation does when it is asked to stop."""

    OBEY = enum.auto()
    IGNORE = enum.auto()
    """It goes on until it is cancelled."""
    SWALLOW = enum.auto()
    """It goes on even then, until it is released."""
    SLOW = enum.auto()
    """It takes `stop_takes` seconds, and dies of cancellation."""
    CRASH = enum.auto()


class Boom(Exception):
    """The crash of the misbehaving child."""


class Misbehaving:
    """A child that does as it is told. Satisfies `runtime.child.Child`."""

    def __init__(self, name: str, harness: Harness) -> None:
        self.name = name
        self.harness = harness
        self.starts: list[Start | BaseException] = []
        """How the next incarnations start; afterwards they serve."""
        self.stop = Stop.OBEY
        self.stop_takes = 1.0
        self.message: str | None = None
        self.inside = 0
        self.incarnations: list[int] = []
        """Those that began to start."""
        self.served: list[int] = []
        self.served_at: list[float] = []
        self.exits: list[Exit] = []
        self.parked: list[str] = []
        self.decided: list[bool] = []
        self.finals: list[str] = []
        self.stop_reasons: list[StopReason] = []
        self._order: trio.Event = trio.Event()
        self._outcome: BaseException | None = None
        self._asked = trio.Event()
        self._released = trio.Event()

    # What tests do

    def crash(self, error: BaseException | None = None) -> None:
        """Let the incarnation that serves crash."""
        self._outcome = error or Boom(self.name)
        self._order.set()

    def finish(self) -> None:
        """Let the incarnation that serves return."""
        self._order.set()

    def release(self) -> None:
        """Let whoever swallows cancellation end."""
        self._released.set()

    @property
    def reasons(self) -> list[ExitReason]:
        """Of all ends so far."""
        return [end.reason for end in self.exits]

    # The protocol

    async def run(self, incarnation: int, *, task_status: trio.TaskStatus[None]) -> None:
        self.inside += 1
        if self.inside > 1:
            self.harness.detonated.append(f"{self.name}#{incarnation}")
        self.incarnations.append(incarnation)
        self.harness.journal.append(f"start {self.name}")
        self._order, self._asked, self._outcome = trio.Event(), trio.Event(), None
        self._released = trio.Event()
        try:
            await self._start(incarnation, task_status)
            await self._serve()
        finally:
            self.inside -= 1
            self.harness.journal.append(f"end {self.name}")

    async def _start(self, incarnation: int, task_status: trio.TaskStatus[None]) -> None:
        how = self.starts.pop(0) if self.starts else Start.SERVE
        if isinstance(how, BaseException):
            raise how
        match how:
            case Start.FAIL:
                raise Boom(f"{self.name} does not start")
            case Start.HANG:
                await trio.sleep_forever()
            case Start.SWALLOW:
                await self._swallow()
            case Start.RETURN:
                self.finish()
                return
            case Start.IGNORE:
                raise Ignore("not needed")
        self.served.append(incarnation)
        self.served_at.append(trio.current_time())
        self.harness.journal.append(f"up {self.name}")
        task_status.started()
        if how is Start.SERVE_AND_CRASH:
            raise Boom(self.name)

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_for_stop, nursery.cancel_scope)
            await self._order.wait()
            nursery.cancel_scope.cancel()
            if self._outcome is not None:
                raise self._outcome

    async def _watch_for_stop(self, serving: trio.CancelScope) -> None:
        if self.stop is Stop.SWALLOW:
            await self._swallow()
            serving.cancel()
            return
        await self._asked.wait()
        match self.stop:
            case Stop.OBEY:
                serving.cancel()
            case Stop.SLOW:
                await trio.sleep(self.stop_takes)
                serving.cancel()
            case Stop.CRASH:
                raise Boom(f"{self.name} crashes while it stops")
            case Stop.IGNORE:
                await trio.sleep_forever()

    async def _swallow(self) -> None:
        with trio.CancelScope(shield=True):
            await self._released.wait()

    def request_stop(self, reason: StopReason) -> None:
        self.stop_reasons.append(reason)
        self.harness.journal.append(f"stop {self.name}")
        self._asked.set()

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the protocol's word
        self.exits.append(exit)
        self.harness.journal.append(f"exit {self.name}")

    def on_decided(self, *, restarts: bool) -> None:
        self.decided.append(restarts)

    def on_parked(self, reason: str) -> None:
        self.parked.append(reason)

    def on_final(self, reason: str) -> None:
        self.finals.append(reason)

    def last_activity(self) -> Activity:
        return Activity(self.message)


class Harness:
    """Makes children and supervisors, keeps their events and one journal of what happened in which order."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.events: list[Event] = []
        self.detonated: list[str] = []
        self.children: dict[str, Misbehaving] = {}

    def __getitem__(self, name: str) -> Misbehaving:
        return self.children[name]

    def child(self, name: str, *starts: Start | BaseException, stop: Stop = Stop.OBEY) -> Misbehaving:
        """A child of this name; the same one for the same name."""
        child = self.children.setdefault(name, Misbehaving(name, self))
        child.starts.extend(starts)
        child.stop = stop
        return child

    def spec(self, name: str, *starts: Start | BaseException, stop: Stop = Stop.OBEY, **settings: Any) -> ChildSpec:
        """A spec that makes that child."""
        child: Child = self.child(name, *starts, stop=stop)
        return ChildSpec(name, lambda: child, **settings)

    def supervisor(self, *specs: ChildSpec, name: str = "top", **settings: Any) -> Supervisor:  # Any: its arguments
        """A supervisor whose events the harness keeps and whose jitter is none."""
        return Supervisor(name, specs, emit=self.events.append, chance=lambda: 0.5, **settings)

    def dynamic(
        self, template: Callable[[str], ChildSpec], **settings: Any
    ) -> DynamicSupervisor[[str]]:  # Any: as above
        """A supervisor of a template with one argument, the name."""
        return DynamicSupervisor("pen", template, emit=self.events.append, chance=lambda: 0.5, **settings)

    def nested(self, inner: Supervisor, **settings: Any) -> ChildSpec:  # Any: the fields of ChildSpec
        """The spec of a supervisor as a child."""
        settings = {"shutdown": float("inf"), "kind": "supervisor", **settings}
        return ChildSpec(inner.name, lambda: inner, **settings)

    def incarnations(self) -> dict[str, int]:
        """The latest serving incarnation of every child."""
        return {name: child.served[-1] if child.served else 0 for name, child in self.children.items()}

    def kinds(self) -> list[str]:
        """Names of the event classes and whom they concern, in order."""
        return [f"{event.kind} {event.actor}" for event in self.events]

    def events_of(self, kind: type[Event]) -> list[Any]:  # Any: events of the class asked for
        """All events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    @asynccontextmanager
    async def running(self, supervisor: Supervisor | DynamicSupervisor[[str]]) -> AsyncIterator[None]:
        """Run a supervisor while the block runs; stop it in order afterwards. Its error comes out as it is."""
        error: BaseException | None = None
        outcome = Outcome()
        async with trio.open_nursery() as nursery:
            await nursery.start(outcome.collect, supervisor)
            if outcome.error is None:
                try:
                    yield
                except Exception as raised:  # noqa: BLE001  # raised again below, outside the nursery
                    error = raised
                    for child in self.children.values():
                        child.release()
            supervisor.request_stop(StopReason(StopCause.SHUTDOWN, "the test is over"))
        if error is not None or outcome.error is not None:
            raise error or outcome.error  # type: ignore[misc]  # one of them is there


@attrs.define
class Outcome:
    """How a supervisor ended."""

    error: BaseException | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def collect(
        self,
        supervisor: Supervisor | DynamicSupervisor[[str]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run it and keep what it raises."""
        try:
            await supervisor.run(1, task_status=task_status)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.error = error
        self.ended.set()
