"""What operators may do to a running system's actors, and see of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import attrs
import trio

from runtime.child import ExitReason
from runtime.core.beats import WorkerState
from runtime.core.drain import DrainingAddress
from runtime.core.readiness import judge_readiness
from runtime.core.ref import AddressState
from runtime.core.spawned_address import SpawnedAddress
from runtime.crash_report import CrashReport
from runtime.errors import AtlasError, UnknownActor
from runtime.events import Event
from runtime.message import Resume, Suspend
from runtime.operations.running import RunningSystem
from runtime.operations.signs import Attention, attention, circle_of, sign_of
from runtime.supervision.events import ChildExited
from runtime.supervision.supervisor import ChildInfo, ChildState, Supervisor
from runtime.watchdog.verdict import beat_ages, take_snapshot
from runtime.wording import nearest

LISTED_CHILDREN = 1000
"""How many names of spawned actors `inspect` lists."""


def why_declined(child: ChildInfo) -> str | None:
    """Why the child declined to run; None if it did not decline. One that declined is not missed."""
    last = child.last_exit
    if child.state is not ChildState.DOWN or last is None or last.reason is not ExitReason.IGNORED:
        return None
    return last.detail or "it declined to run"


class OperationFailed(AtlasError):
    """The operation was done, and did not lead to what it is for. Exit code 70."""


class OperationRefused(AtlasError):
    """The operation makes no sense for this actor now; the text says what would."""

    exit_code = 64


@attrs.frozen
class ResumeOutcome:
    """What `resume` found."""

    not_paused: tuple[str, ...]
    """Actors that were not paused."""
    not_running: Mapping[str, str]
    """Actors that go on with nothing, since they do not run, and their states."""


SETTLE_SECONDS = 0.2
"""How long `restart` looks at what it has started: one that crashes in its first message has not come back."""


SETTLE_TURNS = 20
"""Turns of the loop that it looks at least: on a machine that is busy the time may pass before the actor has run at all."""


class Operations:
    """One method per verb; a name is that of an actor or of a group, whose actors are then all meant.

    All but `restart`, `stop` and `drain` act at once; none needs the actor's help. All raise OperationRefused for an unknown
    name, with the nearest one.
    """

    def __init__(self, system: RunningSystem) -> None:
        self._system = system

    # -- acting

    def kill(self, name: str, reason: str) -> None:
        """Interrupt the actor at its next checkpoint; its restart policy decides what follows, and no attempt is charged.

        Raises AdministrationError when it does not run.
        """
        self._members(name)
        self._system.tree.supervisor_of(name).kill_child(name, reason, counts=False)

    def arm(self, name: str, point: str, nth: int = 1) -> None:
        """Crash the actor at the `nth` visit from now of a failpoint. Refused unless `[chaos] failpoints = true`."""
        self._actor(name)
        if not self._system.config.chaos.failpoints:
            raise OperationRefused(
                "failpoints are off: set [chaos] failpoints = true and start again (never where customers are)"
            )
        self._system.services.failpoints.arm(name, point, nth)

    async def start(self, name: str) -> tuple[int | None, bool]:
        """Start the actor if it is down or parked; returns its incarnation, and whether that is a new one.

        None: it declined to run. One that runs or will be started by itself is left alone. Raises as `restart` does.
        """
        self._members(name)
        child = self._system.tree.find(name)
        if child is None or child.state in (ChildState.DOWN, ChildState.PARKED):
            return await self.restart(name), True
        if child.state is ChildState.UNSTOPPED:
            raise OperationRefused(
                f"{name} has ignored its end: its task still exists, and nothing can be started in its place until the process "
                "ends; `atlas stop` ends it"
            )
        return child.incarnation, False

    async def restart(self, name: str) -> int | None:
        """Stop the actor in order if it runs, then start it; returns its new incarnation, None if it declined to run.

        One that is paused stays paused; one that is temporary comes back, also when it has ended before. Raises
        ChildrenUnstopped when it does not stop, ChildStartFailed when it does not start, and OperationFailed when what was
        started crashes within SETTLE_SECONDS.
        """
        ended: list[ChildExited] = []
        seen = trio.Event()

        def note(event: Event) -> None:
            if isinstance(event, ChildExited) and event.actor == name:
                ended.append(event)
                seen.set()

        unsubscribe = self._system.services.events.subscribe(note, ChildExited)
        try:
            number = await self._restart(name)
            if number is None:
                return None
            with trio.move_on_after(SETTLE_SECONDS):
                while not any(event.incarnation >= number for event in ended):
                    await seen.wait()
                    seen = trio.Event()
            for _ in range(SETTLE_TURNS):
                await trio.lowlevel.checkpoint()
        finally:
            unsubscribe()
        crash = next((event for event in ended if event.incarnation >= number), None)
        if crash is not None:
            raise OperationFailed(
                f"{name} was started as incarnation {number}, and did not last: {crash.line()}; `atlas crashes {name}` shows all "
                "of it"
            )
        return number

    async def _restart(self, name: str) -> int | None:
        self._members(name)
        tree = self._system.tree
        supervisor, child = tree.supervisor_of(name), tree.find(name)
        if child is None and name in self._system.addresses:
            address = self._system.addresses[name]
            assert isinstance(supervisor, Supervisor), "a declared actor has a supervisor of declared ones"
            return await supervisor.start_child(self._system.plans[name].spec(lambda: address))
        if child is not None and child.state not in (ChildState.DOWN, ChildState.PARKED):
            await supervisor.terminate_child(name, keep=True)
        return await supervisor.restart_child(name)

    async def stop(self, name: str) -> None:
        """Stop the actor in order: it finishes its current message, and stays down until `restart`."""
        self._members(name)
        await self._system.tree.supervisor_of(name).terminate_child(name)

    async def drain(self, name: str) -> None:
        """Like `stop`, but it handles first what its mailbox has accepted, as far as half of its `shutdown` time reaches."""
        members = self._members(name)
        for address in members:
            address.drains = True
        try:
            await self._system.tree.supervisor_of(name).terminate_child(name)
        finally:
            for address in members:
                address.drains = False

    def pause(self, name: str) -> None:
        """Let the actor serve nothing but control messages until `resume`; holds over restarts and over a stop."""
        for address in self._members(name):
            self._pause(address, paused=True)

    def resume(self, name: str) -> ResumeOutcome:
        """Undo `pause`; returns which of the actors were not paused, and which do not run all the same, with their states."""
        members = self._members(name)
        outcome = ResumeOutcome(
            not_paused=tuple(address.name for address in members if not address.is_paused),
            not_running={
                address.name: "stopped" if address.state is AddressState.DEAD else address.state.value
                for address in members
                if not address.is_up
            },
        )
        for address in members:
            self._pause(address, paused=False)
        return outcome

    def _pause(self, address: DrainingAddress, *, paused: bool) -> None:
        address.is_paused = paused  # who is down begins so
        address.ref.tell(Suspend() if paused else Resume())
        self._system.worker_states.pause(address.name, paused=paused)

    # -- looking

    def inspect(self, name: str) -> Mapping[str, object]:
        """All that is known of one actor, its own `inspect()` included. Works while it is wedged."""
        tree = self._system.tree
        if name in tree.groups:
            group = tree.group_plan(name)
            return {
                **self.describe(self._child(name)),
                "strategy": group.table.strategy.value,
                "intensity": group.table.intensity,
                "period": group.table.period,
                "restart": group.table.restart.value,
                "give_up": group.table.give_up.value,
                "needs": list(group.waits_for),
                "children": [child.name for child in tree.groups[name].which_children()],
                "last_crash": self._last_crash(name),
            }
        address = self._actor(name)
        return {
            **self.describe(self._child(name)),
            **address.inspect(),
            **self._declaration(name, address),
            "spawned": [child.name for child in self._system.services.spawned.children_of(name)][:LISTED_CHILDREN],
            "stack": address.stack(),
            "last_crash": self._last_crash(name),
        }

    def _declaration(self, name: str, address: DrainingAddress) -> Mapping[str, object]:
        plan = self._system.plans.get(name)
        if plan is not None:
            actor, restart, give_up = plan.actor, plan.table.restart, plan.table.give_up
        else:
            assert isinstance(address, SpawnedAddress), "it is declared or spawned"
            actor, restart, give_up = address.kind, address.spec.restart, address.spec.give_up
        return {
            "class": f"{actor.__module__}:{actor.__qualname__}",
            "needs": [] if plan is None else list(plan.needs),
            "restart": restart.value,
            "give_up": give_up.value,
        }

    def crashes(self, name: str | None = None) -> list[CrashReport]:
        """The crash reports that are kept, of one actor or group (of all if None), oldest first."""
        if name is not None and name not in self._system.tree.groups:
            self._actor(name)
        return self._system.crashes.reports(name)

    def _last_crash(self, name: str) -> Mapping[str, object] | None:
        found = self._system.crashes.reports(name)
        return found[-1].as_dict() if found else None

    def status(self) -> Mapping[str, object]:
        """The system and each of its children in one document."""
        system = self._system
        children = [self.describe(child) for child in system.tree.children()]
        judged = judge_readiness(system.registry)
        unready_groups = {str(child["name"]) for child in children if child["kind"] == "group" and not child["ready"]}
        # a group that is down stands for its members
        hidden = system.addresses.keys() - {child["name"] for child in children} if unready_groups else set()
        not_ready = [reason.actor for reason in judged.not_ready if reason.actor not in hidden] + sorted(unready_groups)
        state = "stopping" if system.is_stopping else "up" if system.is_up else "starting"
        circle = circle_of(children)
        for child in children:
            child["word"] = sign_of(child, circle).word
        degraded = list(dict.fromkeys(reason.actor for reason in judged.degraded))
        return {
            "name": system.name,
            "instance": system.services.instance,
            "pid": os.getpid(),
            "state": state,
            "ready": system.is_up and not system.is_stopping and not not_ready,
            "not_ready": list(dict.fromkeys(not_ready)),
            "degraded": degraded,
            "attention": [] if system.is_stopping else self._attention(children, degraded),
            "started_at": system.started_at,
            "uptime": system.uptime,
            "config": None if system.config.path is None else str(system.config.path.resolve()),
            "socket": str(system.socket),
            "dead_letters": system.services.deadletters.total,
            "beats": self._beats(),
            "unstopped": system.tree.unstopped(),
            "children": children,
        }

    def _attention(self, children: Sequence[Mapping[str, object]], degraded: Sequence[str]) -> list[Attention]:
        """What needs a human: children that do not do their work, and those that say what harms them."""
        found = attention(children)
        named = {one.name for one in found}
        lines = [child for child in children if child["name"] in degraded and child["name"] not in named]
        return found + [
            Attention(str(child["name"]), "in trouble", str(child["why_not_ready"]), float(str(child["since"])))
            for child in lines
        ]

    def _beats(self) -> Mapping[str, object]:
        """The ages of the three beats, the stalest worker if one is not fresh, and whose silence does not count."""
        snapshot = take_snapshot(self._system.services.beats)
        ages = beat_ages(snapshot)
        return {
            "event_loop": ages.event_loop,
            "worker": ages.worker,
            "stalest_worker": ages.worker_name or None,
            "why_stale": None if ages.worker_why is None else ages.worker_why.value,
            "left_out": {
                worker.name: worker.state.value for worker in snapshot.workers if worker.state is not WorkerState.ACTIVE
            },
            "healthcheck": ages.healthcheck,
            "last_spike": ages.spike,
        }

    def describe(self, child: ChildInfo) -> dict[str, object]:
        """One child's line of `status`. A group has no mailbox: what is of an actor alone is empty there."""
        tree = self._system.tree
        spawned = self._system.services.spawned
        address = self._address(child.name)
        parent = spawned.get(child.name)
        seen = _AS_A_GROUP if address is None else address.look()
        now = trio.current_time()
        last = child.last_exit
        declined = why_declined(child)
        if address is not None:
            ready = address.readiness[0] or not address.is_awaited
        else:
            ready = child.state is ChildState.RUNNING or (last is not None and last.reason is ExitReason.NORMAL)
        return {
            "name": child.name,
            "kind": "group" if address is None else "actor",
            "group": tree.group_of(child.name),
            "depth_in_tree": tree.depth(child.name),
            "parent": None if parent is None else parent.parent,
            "outlives_parent": parent is not None and parent.outlives,
            "children": spawned.count(child.name),
            "state": "paused" if seen["suspended"] and child.state is ChildState.RUNNING else child.state.value,
            "paused": address is not None and address.is_paused,
            "since": max(0.0, now - child.since),
            "incarnation": child.incarnation,
            "restarts": child.restarts if address is None else address.restarts,
            "ready": ready,
            "why_not_ready": seen["why_not_ready"] if address is not None else "" if ready else child.state.value,
            "reason": child.reason if declined is None else f"not needed: {declined}",
            "next_start": None if child.next_start is None else max(0.0, child.next_start - now),
            "handling": seen["handling"],
            "handling_for": seen["handling_for"],
            "waiting_on": seen["waiting_on"],
            "depth": seen["depth"],
            "peak": seen["peak"],
            "capacity": seen["capacity"],
            "oldest_age": seen["oldest_age"],
            "facts": seen["facts"],
            "last_exit": None
            if last is None
            else {
                "reason": last.reason.value,
                "error": last.summary or None,
                "where": None if last.report is None else last.report.where or None,
                "task": None if last.report is None else last.report.task,
                "incarnation": last.incarnation,
                "last_message": last.last_message,
                "lived": last.lived,
            },
        }

    def _address(self, name: str) -> DrainingAddress | None:
        return self._system.addresses.get(name) or self._system.services.spawned.get(name)

    def _child(self, name: str) -> ChildInfo:
        child = self._system.tree.find(name)
        if child is None:
            raise OperationRefused(f"{name} has ended and is not listed any more; `atlas start {name}` starts it")
        return child

    def _members(self, name: str) -> list[DrainingAddress]:
        """The actor of this name, or all actors of the group of this name."""
        tree = self._system.tree
        if name in tree.groups:
            return [self._system.addresses[member] for member in tree.members(name)]
        return [self._actor(name)]

    def address(self, name: str) -> DrainingAddress:
        """An actor's address. Raises OperationRefused for a group and for an unknown name."""
        return self._actor(name)

    def _actor(self, name: str) -> DrainingAddress:
        if name in self._system.tree.groups:
            members = ", ".join(self._system.tree.members(name))
            raise OperationRefused(f"{name} is a group of actors; name one of them: {members}")
        address = self._address(name)
        if address is None:
            spawned = [child.name for child in self._system.services.spawned]
            meant = nearest(name, [*self._system.addresses, *self._system.tree.groups, *spawned])
            raise OperationRefused(str(UnknownActor(name, meant)))
        return address


_AS_A_GROUP: Mapping[str, object] = {
    "suspended": False,
    "handling": None,
    "handling_for": None,
    "waiting_on": [],
    "depth": 0,
    "peak": 0,
    "capacity": 0,
    "oldest_age": 0.0,
    "facts": {},
}
