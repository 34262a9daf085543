"""What tests of actors need; public, because whoever adds an actor needs it.

    async with testing.actor_system() as system:
        counter = await system.start(Counter(step=2))
        assert await counter.ask(GetCount(), within=1) == 0

Works on trio's own clock and on a MockClock. `run_virtual` makes a run that a seed repeats, `ChaosMonkey` kills at
every message
boundary, `assert_events` looks at what happened. Production code does not import it.
"""

from runtime.testing.actors import Crash, Echo, Failable, FailableActor, FailableError, Hang, Probe, Swallow
from runtime.testing.chaos import Boundary, ChaosFailed, ChaosMonkey, ChaosReport, Kill
from runtime.testing.event_assertions import Happened, assert_events, happened
from runtime.testing.system import ActorSystem, OnCrash, actor_system
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
    "FailableError",
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
