"""A supervised actor runtime on trio. The public names, flat; the modules behind them are of concern to nobody else.

Tests of actors use `runtime.testing` as well.
"""

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
