"""What operators may do to a running system's actors, and see of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from runtime.drain import DrainingAddress
from runtime.errors import AtlasError, UnknownActor
from runtime.message import Resume, Suspend
from runtime.supervisor import ChildInfo, ChildState

if TYPE_CHECKING:
    from runtime.system import System


class OperationRefused(AtlasError):
    """The operation makes no sense for this actor now; the text says what would."""

    exit_code = 64


class Operations:
    """One method per verb. All but `restart`, `stop` and `drain` act at once; none needs the actor's help."""

    def __init__(self, system: System) -> None:
        self._system = system

    # -- acting

    def kill(self, name: str, reason: str) -> None:
        """Interrupt the actor at its next checkpoint; its restart policy decides what follows.

        Raises OperationRefused for an unknown name and AdministrationError when it does not run.
        """
        self._find(name)
        self._system.root.kill_child(name, reason)

    def arm(self, name: str, point: str, nth: int = 1) -> None:
        """Crash the actor at the `nth` visit from now of a failpoint. Refused unless `[chaos] failpoints = true`."""
        self._find(name)
        if not self._system.config.chaos.failpoints:
            raise OperationRefused(
                "failpoints are off: set [chaos] failpoints = true and start again (never where customers are)"
            )
        self._system.services.failpoints.arm(name, point, nth)

    async def restart(self, name: str) -> int | None:
        """Stop the actor in order if it runs, then start it; returns its new incarnation, None if it declined to run.

        One that is paused stays paused; one that is temporary comes back, also when it has ended before. Raises
        ChildrenUnstopped when it does not stop and ChildStartFailed when it does not start.
        """
        address = self._find(name)
        root = self._system.root
        child = next((child for child in root.which_children() if child.name == name), None)
        if child is None:
            return await root.start_child(self._system.plans[name].spec(lambda: address))
        if child.state not in (ChildState.DOWN, ChildState.PARKED):
            await root.terminate_child(name, keep=True)
        return await root.restart_child(name)

    async def stop(self, name: str) -> None:
        """Stop the actor in order: it finishes its current message, and stays down until `restart`."""
        self._find(name)
        await self._system.root.terminate_child(name)

    async def drain(self, name: str) -> None:
        """Like `stop`, but it handles first what its mailbox has accepted, as far as half of its `shutdown` time reaches."""
        address = self._find(name)
        address.drains = True
        try:
            await self._system.root.terminate_child(name)
        finally:
            address.drains = False

    def pause(self, name: str) -> None:
        """Let the actor serve nothing but control messages until `resume`; holds over restarts and over a stop."""
        self._pause(self._find(name), paused=True)

    def resume(self, name: str) -> None:
        """Undo `pause`."""
        self._pause(self._find(name), paused=False)

    def _pause(self, address: DrainingAddress, *, paused: bool) -> None:
        address.is_paused = paused  # who is down begins so
        address.ref.tell(Suspend() if paused else Resume())
        self._system.worker_states.pause(address.name, paused=paused)

    # -- looking

    def inspect(self, name: str) -> Mapping[str, object]:
        """All that is known of one actor, its own `inspect()` included. Works while it is wedged."""
        address = self._find(name)
        plan = self._system.plans[name]
        return {
            **self.describe(self._child(name)),
            **address.inspect(),
            "class": f"{plan.actor.__module__}:{plan.actor.__qualname__}",
            "needs": list(plan.needs),
            "restart": plan.table.restart.value,
            "give_up": plan.table.give_up.value,
            "stack": address.stack(),
        }

    def status(self) -> Mapping[str, object]:
        """The system and each of its children in one document."""
        system = self._system
        children = [self.describe(child) for child in system.root.which_children()]
        not_ready = [str(child["name"]) for child in children if not child["ready"]]
        state = "stopping" if system.is_stopping else "up" if system.is_up else "starting"
        beats = system.services.beats
        now = beats.now()
        return {
            "name": system.name,
            "instance": system.services.instance,
            "pid": os.getpid(),
            "state": state,
            "ready": system.is_up and not system.is_stopping and not not_ready,
            "not_ready": not_ready,
            "started_at": system.started_at,
            "uptime": system.uptime,
            "config": None if system.config.path is None else str(system.config.path),
            "socket": str(system.socket),
            "dead_letters": system.services.deadletters.total,
            "beats": {
                "event_loop": None if beats.event_loop is None else now - beats.event_loop,
                "healthcheck": None if beats.healthcheck is None else now - beats.healthcheck,
                "last_spike": None if beats.last_spike is None else now - beats.last_spike,
            },
            "unstopped": [report.name for report in system.root.unstopped],
            "children": children,
        }

    def describe(self, child: ChildInfo) -> dict[str, object]:
        """One child's line of `status`."""
        address = self._system.addresses[child.name]
        seen = address.inspect()
        now = trio.current_time()
        last = child.last_exit
        return {
            "name": child.name,
            "state": "paused" if seen["suspended"] and child.state is ChildState.RUNNING else child.state.value,
            "paused": address.is_paused,
            "since": max(0.0, now - child.since),
            "incarnation": child.incarnation,
            "restarts": address.restarts,
            "ready": seen["ready"] or self._is_done(child),
            "why_not_ready": seen["why_not_ready"],
            "reason": child.reason,
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
                "error": None if last.error is None else f"{type(last.error).__name__}: {last.error}",
                "incarnation": last.incarnation,
                "last_message": last.last_message,
                "lived": last.lived,
            },
        }

    def _is_done(self, child: ChildInfo) -> bool:
        """A child that declined to run, or that has finished by itself, is nothing to wait for."""
        return child.state is ChildState.DOWN and child.last_exit is not None and not child.last_exit.abnormal

    def _child(self, name: str) -> ChildInfo:
        for child in self._system.root.which_children():
            if child.name == name:
                return child
        raise OperationRefused(f"{name} has ended and is not listed any more; `atlas restart {name}` starts it")

    def _find(self, name: str) -> DrainingAddress:
        try:
            self._system.registry.find(name)
            return self._system.addresses[name]
        except UnknownActor as error:
            raise OperationRefused(str(error)) from error
