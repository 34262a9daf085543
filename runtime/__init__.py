"""A supervised actor runtime on trio. The public names, flat; the modules behind them are of concern to nobody else.

Tests of actors use `runtime.testing` as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runtime.actor import Actor, handler
    from runtime.actor_task import ActorTask
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
    from runtime.context import Context
    from runtime.deadletters import DeadLetter, DeadLetters
    from runtime.deferred import Deferred
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
    from runtime.events import Event, EventBus
    from runtime.failpoints import Failpoints
    from runtime.lease_guard import LeaseMarker, current_lease, refuse_if_leased
    from runtime.mailbox import MailboxStatistics, Overflow
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
    from runtime.monitor import Monitor
    from runtime.ref import Ref
    from runtime.registry import Registry
    from runtime.services import Services
    from runtime.supervisor import DynamicSupervisor, Supervisor
    from runtime.timers import Timer

__all__ = [
    "POSTPONE",
    "Activity",
    "Actor",
    "ActorCrashed",
    "ActorDead",
    "ActorRestarting",
    "ActorTask",
    "AskError",
    "AskTimeout",
    "AtlasError",
    "AutoShutdown",
    "Child",
    "ChildSpec",
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
    "Exit",
    "ExitReason",
    "Failpoints",
    "Fatal",
    "GiveUp",
    "Ignore",
    "Inspect",
    "Killed",
    "LeaseHeldAcrossCall",
    "LeaseMarker",
    "MailboxFull",
    "MailboxStatistics",
    "Message",
    "Monitor",
    "Overflow",
    "Postponed",
    "Ref",
    "Registry",
    "Request",
    "Restart",
    "Resume",
    "Services",
    "StartRefused",
    "Stop",
    "StopCause",
    "StopReason",
    "Strategy",
    "Supervisor",
    "Suspend",
    "Timer",
    "TooManyPostponed",
    "Unhandled",
    "UnknownActor",
    "WakeUp",
    "WouldDeadlock",
    "current_lease",
    "handler",
    "refuse_if_leased",
]

# Found when they are first asked for: `atlas --help` needs none of them, and would wait for all.
_HOME: Final = {
    "Activity": "runtime.child",
    "Actor": "runtime.actor",
    "ActorCrashed": "runtime.errors",
    "ActorDead": "runtime.errors",
    "ActorRestarting": "runtime.errors",
    "ActorTask": "runtime.actor_task",
    "AskError": "runtime.errors",
    "AskTimeout": "runtime.errors",
    "AtlasError": "runtime.errors",
    "AutoShutdown": "runtime.child",
    "Child": "runtime.child",
    "ChildSpec": "runtime.child",
    "ConfigError": "runtime.errors",
    "Context": "runtime.context",
    "Control": "runtime.message",
    "DeadLetter": "runtime.deadletters",
    "DeadLetters": "runtime.deadletters",
    "Deferred": "runtime.deferred",
    "Delivery": "runtime.message",
    "Down": "runtime.message",
    "DynamicSupervisor": "runtime.supervisor",
    "Event": "runtime.events",
    "EventBus": "runtime.events",
    "Exit": "runtime.child",
    "ExitReason": "runtime.child",
    "Failpoints": "runtime.failpoints",
    "Fatal": "runtime.errors",
    "GiveUp": "runtime.child",
    "Ignore": "runtime.errors",
    "Inspect": "runtime.message",
    "Killed": "runtime.errors",
    "LeaseHeldAcrossCall": "runtime.errors",
    "LeaseMarker": "runtime.lease_guard",
    "MailboxFull": "runtime.errors",
    "MailboxStatistics": "runtime.mailbox",
    "Message": "runtime.message",
    "Monitor": "runtime.monitor",
    "Overflow": "runtime.mailbox",
    "POSTPONE": "runtime.message",
    "Postponed": "runtime.message",
    "Ref": "runtime.ref",
    "Registry": "runtime.registry",
    "Request": "runtime.message",
    "Restart": "runtime.child",
    "Resume": "runtime.message",
    "Services": "runtime.services",
    "StartRefused": "runtime.errors",
    "Stop": "runtime.message",
    "StopCause": "runtime.child",
    "StopReason": "runtime.child",
    "Strategy": "runtime.child",
    "Supervisor": "runtime.supervisor",
    "Suspend": "runtime.message",
    "Timer": "runtime.timers",
    "TooManyPostponed": "runtime.errors",
    "Unhandled": "runtime.errors",
    "UnknownActor": "runtime.errors",
    "WakeUp": "runtime.message",
    "WouldDeadlock": "runtime.errors",
    "current_lease": "runtime.lease_guard",
    "handler": "runtime.actor",
    "refuse_if_leased": "runtime.lease_guard",
}


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
