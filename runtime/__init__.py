"""A supervised actor runtime on trio. The public names, flat; the modules behind them are of concern to nobody else.

Tests of actors use `runtime.testing.system` as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runtime.child import (
        Activity,
        AutoShutdown,
        Child,
        ChildSpec,
        Exit,
        ExitReason,
        GiveUp,
        Restart,
        StopCause,
        StopReason,
        Strategy,
    )
    from runtime.core.actor import Actor, handler
    from runtime.core.address import Address, AddressState
    from runtime.core.ask import Deferred
    from runtime.core.beats import WorkerBeat
    from runtime.core.budget import Budget
    from runtime.core.context import Context
    from runtime.core.deadletters import DeadLetter, DeadLetters
    from runtime.core.failpoints import Failpoints
    from runtime.core.incarnation import ActorTask
    from runtime.core.lease_guard import LeaseMarker, current_lease, refuse_if_leased
    from runtime.core.mailbox import DEFAULT_CAPACITY, MailboxStatistics, Overflow
    from runtime.core.ref import Monitor, Ref
    from runtime.core.services import Registry, Services
    from runtime.core.timers import Timer, clock_reader
    from runtime.core.worker import Iteration, PeriodicWorker, watch_mailbox
    from runtime.correlation import correlated
    from runtime.errors import (
        ActorCrashed,
        ActorDead,
        ActorRestarting,
        AskError,
        AskTimeout,
        AtlasError,
        ConfigError,
        Fatal,
        Ignore,
        Killed,
        LeaseHeldAcrossCall,
        MailboxFull,
        StartRefused,
        TooManyPostponed,
        Unhandled,
        UnknownActor,
        WouldDeadlock,
    )
    from runtime.events import Event, EventBus, EventRecord
    from runtime.log.logs import get_logger
    from runtime.log.redaction import redact
    from runtime.message import (
        POSTPONE,
        Control,
        Delivery,
        Down,
        Inspect,
        Message,
        Postponed,
        Request,
        Resume,
        Stop,
        Suspend,
        WakeUp,
    )
    from runtime.restart_limits import NO_BACKOFF, Backoff
    from runtime.supervision.child_run import ChildrenUnstopped, open_tree_nursery
    from runtime.supervision.children import ChildCounts, ChildInfo, ChildState
    from runtime.supervision.errors import (
        AdministrationError,
        ChildStartFailed,
        RefusalReason,
        RepairIntensityExceeded,
        RestartIntensityExceeded,
        SpecError,
    )
    from runtime.supervision.events import ChildStarted
    from runtime.supervision.supervisor import DynamicSupervisor, Supervisor
    from runtime.system.system import System, run_system, running_system
    from runtime.watchdog.systemd import Systemd

__all__ = [
    "DEFAULT_CAPACITY",
    "NO_BACKOFF",
    "POSTPONE",
    "Activity",
    "Actor",
    "ActorCrashed",
    "ActorDead",
    "ActorRestarting",
    "ActorTask",
    "Address",
    "AddressState",
    "AdministrationError",
    "AskError",
    "AskTimeout",
    "AtlasError",
    "AutoShutdown",
    "Backoff",
    "Budget",
    "Child",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "ChildStartFailed",
    "ChildStarted",
    "ChildState",
    "ChildrenUnstopped",
    "ConfigError",
    "Context",
    "Control",
    "DeadLetter",
    "DeadLetters",
    "Deferred",
    "Delivery",
    "Down",
    "DynamicSupervisor",
    "Event",
    "EventBus",
    "EventRecord",
    "Exit",
    "ExitReason",
    "Failpoints",
    "Fatal",
    "GiveUp",
    "Ignore",
    "Inspect",
    "Iteration",
    "Killed",
    "LeaseHeldAcrossCall",
    "LeaseMarker",
    "MailboxFull",
    "MailboxStatistics",
    "Message",
    "Monitor",
    "Overflow",
    "PeriodicWorker",
    "Postponed",
    "Ref",
    "RefusalReason",
    "Registry",
    "RepairIntensityExceeded",
    "Request",
    "Restart",
    "RestartIntensityExceeded",
    "Resume",
    "Services",
    "SpecError",
    "StartRefused",
    "Stop",
    "StopCause",
    "StopReason",
    "Strategy",
    "Supervisor",
    "Suspend",
    "System",
    "Systemd",
    "Timer",
    "TooManyPostponed",
    "Unhandled",
    "UnknownActor",
    "WakeUp",
    "WorkerBeat",
    "WouldDeadlock",
    "clock_reader",
    "correlated",
    "current_lease",
    "get_logger",
    "handler",
    "open_tree_nursery",
    "redact",
    "refuse_if_leased",
    "run_system",
    "running_system",
    "watch_mailbox",
]

# Found when they are first asked for: `atlas --help` needs none of them, and would wait for all.
_HOME: Final = {
    "Activity": "runtime.child",
    "Actor": "runtime.core.actor",
    "ActorCrashed": "runtime.errors",
    "ActorDead": "runtime.errors",
    "ActorRestarting": "runtime.errors",
    "ActorTask": "runtime.core.incarnation",
    "Address": "runtime.core.address",
    "AddressState": "runtime.core.address",
    "AdministrationError": "runtime.supervision.errors",
    "AskError": "runtime.errors",
    "AskTimeout": "runtime.errors",
    "AtlasError": "runtime.errors",
    "AutoShutdown": "runtime.child",
    "Backoff": "runtime.restart_limits",
    "Budget": "runtime.core.budget",
    "Child": "runtime.child",
    "ChildCounts": "runtime.supervision.children",
    "ChildInfo": "runtime.supervision.children",
    "ChildSpec": "runtime.child",
    "ChildStartFailed": "runtime.supervision.errors",
    "ChildStarted": "runtime.supervision.events",
    "ChildState": "runtime.supervision.children",
    "ChildrenUnstopped": "runtime.supervision.child_run",
    "ConfigError": "runtime.errors",
    "Context": "runtime.core.context",
    "Control": "runtime.message",
    "DEFAULT_CAPACITY": "runtime.core.mailbox",
    "DeadLetter": "runtime.core.deadletters",
    "DeadLetters": "runtime.core.deadletters",
    "Deferred": "runtime.core.ask",
    "Delivery": "runtime.message",
    "Down": "runtime.message",
    "DynamicSupervisor": "runtime.supervision.supervisor",
    "Event": "runtime.events",
    "EventBus": "runtime.events",
    "EventRecord": "runtime.events",
    "Exit": "runtime.child",
    "ExitReason": "runtime.child",
    "Failpoints": "runtime.core.failpoints",
    "Fatal": "runtime.errors",
    "GiveUp": "runtime.child",
    "Ignore": "runtime.errors",
    "Inspect": "runtime.message",
    "Iteration": "runtime.core.worker",
    "Killed": "runtime.errors",
    "LeaseHeldAcrossCall": "runtime.errors",
    "LeaseMarker": "runtime.core.lease_guard",
    "MailboxFull": "runtime.errors",
    "MailboxStatistics": "runtime.core.mailbox",
    "Message": "runtime.message",
    "Monitor": "runtime.core.ref",
    "NO_BACKOFF": "runtime.restart_limits",
    "Overflow": "runtime.core.mailbox",
    "POSTPONE": "runtime.message",
    "PeriodicWorker": "runtime.core.worker",
    "Postponed": "runtime.message",
    "Ref": "runtime.core.ref",
    "RefusalReason": "runtime.supervision.errors",
    "Registry": "runtime.core.services",
    "RepairIntensityExceeded": "runtime.supervision.errors",
    "Request": "runtime.message",
    "Restart": "runtime.child",
    "RestartIntensityExceeded": "runtime.supervision.errors",
    "Resume": "runtime.message",
    "Services": "runtime.core.services",
    "SpecError": "runtime.supervision.errors",
    "StartRefused": "runtime.errors",
    "Stop": "runtime.message",
    "StopCause": "runtime.child",
    "StopReason": "runtime.child",
    "Strategy": "runtime.child",
    "Supervisor": "runtime.supervision.supervisor",
    "Suspend": "runtime.message",
    "System": "runtime.system.system",
    "Systemd": "runtime.watchdog.systemd",
    "Timer": "runtime.core.timers",
    "TooManyPostponed": "runtime.errors",
    "Unhandled": "runtime.errors",
    "UnknownActor": "runtime.errors",
    "WakeUp": "runtime.message",
    "WorkerBeat": "runtime.core.beats",
    "WouldDeadlock": "runtime.errors",
    "clock_reader": "runtime.core.timers",
    "correlated": "runtime.correlation",
    "current_lease": "runtime.core.lease_guard",
    "get_logger": "runtime.log.logs",
    "handler": "runtime.core.actor",
    "open_tree_nursery": "runtime.supervision.child_run",
    "redact": "runtime.log.redaction",
    "refuse_if_leased": "runtime.core.lease_guard",
    "run_system": "runtime.system.system",
    "running_system": "runtime.system.system",
    "watch_mailbox": "runtime.core.worker",
}


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
