"""The watchdog of one system: how it repairs, and what it can tell an operator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from runtime.core.address import Address
from runtime.core.ask import current_call_context
from runtime.core.readiness import judge_readiness
from runtime.core.ref import AddressState
from runtime.core.stacks import tasks_of
from runtime.errors import UnknownActor
from runtime.log.logs import get_logger
from runtime.operations.running import RunningSystem
from runtime.supervision.errors import AdministrationError
from runtime.watchdog.dead_man import DeadManSwitch
from runtime.watchdog.verdict import Repair, judge, take_snapshot
from runtime.watchdog.watchdog import Watchdog, limits_of

_log = get_logger("atlas.watchdog")


def make_watchdog(system: RunningSystem) -> Watchdog:
    """A watchdog that restarts what is stale by killing it, so that its restart policy applies and is seen.

    Its kills are no restart attempts: a common cause that makes many stale at once cannot make the supervisor give up. A
    child that it has to kill again and again is given up on as its `give_up` says.
    """

    settings = system.config.watchdog

    def repair(action: Repair) -> None:
        limits = system.config.watchdog
        why = f"the watchdog found it {action.why.value} for {action.age:.0f} s"
        try:
            supervisor = system.tree.supervisor_of(action.name)
            supervisor.repair_child(action.name, why, intensity=limits.repair_intensity, period=limits.repair_period)
        except AdministrationError as error:
            _log.warning("a stale child is not up, so it cannot be restarted", actor=action.name, why=str(error))

    def diagnostic() -> Iterable[str]:
        return [f"{name}: {json.dumps(_inside(system, name), default=str)}" for name in system.services.beats.pools]

    def handling(name: str) -> str:
        address = _find(system, name)
        return (address.last_activity().message or "") if address is not None and address.is_busy else ""

    def healthcheck_runs() -> bool | None:
        address = _find(system, settings.healthcheck)
        if address is None:
            return None
        return address.state is AddressState.UP and address.mailbox.serve_user

    system.services.beats.healthcheck_name = settings.healthcheck
    return Watchdog(
        system.services.beats,
        limits_of(settings),
        interval=settings.interval,
        events=system.services.events,
        repair=repair,
        diagnostic=diagnostic,
        where=lambda name: _where(system, name),
        handling=handling,
        healthcheck_runs=healthcheck_runs,
        systemd=system.systemd,
    )


def make_dead_man_switch(system: RunningSystem) -> DeadManSwitch | None:
    """The switch of this system, if it has a URL to ping: all is well while the watchdog has nothing to do and it is ready."""
    settings = system.config.watchdog
    if not settings.ping_url:
        return None

    def is_well() -> str:
        limits = limits_of(system.config.watchdog)
        if judge(take_snapshot(system.services.beats), limits):
            return "a heartbeat is stale"
        if not system.is_up or system.is_stopping:
            return "the system is not up"
        missing = judge_readiness(system.registry).not_ready
        return f"not ready: {', '.join(dict.fromkeys(reason.actor for reason in missing))}" if missing else ""

    return DeadManSwitch(settings.ping_url, settings.ping_interval, is_well)


def _find(system: RunningSystem, name: str) -> Address | None:
    try:
        return system.registry.find(name)
    except UnknownActor:
        return None


def _inside(system: RunningSystem, name: str) -> object:
    """What an actor says of itself, whatever it is doing."""
    address = _find(system, name)
    return {} if address is None else address.inspect()["actor"]


def _where(system: RunningSystem, name: str) -> Sequence[str]:
    """Where the actor's code waits, outermost first: the handler it is in, else its own task, else its message loop."""
    address = _find(system, name)
    if address is None:
        return ()
    if not address.is_busy:
        # A worker's iteration is a task beside its message loop, which waits for messages and is well.
        for task in tasks_of(address):
            if not task.context[current_call_context].blocks_actor:  # type: ignore[union-attr]  # it is what they were found by
                return [f"{f.f_code.co_filename}:{line} {f.f_code.co_name}" for f, line in task.iter_await_frames()]
    return address.stack()
