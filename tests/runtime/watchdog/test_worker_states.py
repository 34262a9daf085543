"""The watchdog leaves out whom an operator paused or a supervisor parked, and nobody else."""

from __future__ import annotations

from runtime.core.beats import Beats, WorkerState
from runtime.supervision.events import ChildParked, ChildStarted
from runtime.watchdog.worker_states import WorkerStates


def test_parking_and_pausing_mark_the_beat_and_a_restart_takes_only_the_parking_back() -> None:
    beats = Beats()
    beats.worker("activation")
    beats.pool("pool.main")
    states = WorkerStates(beats)

    def seen() -> list[WorkerState]:
        return [beats.workers["activation"].state, beats.pools["pool.main"].state]

    states.pause("activation", paused=True)
    assert seen() == [WorkerState.PAUSED, WorkerState.ACTIVE]
    for name in ("activation", "pool.main"):
        states.note(ChildParked(actor=name, supervisor="atlas", reason="too often"))
    assert seen() == [WorkerState.PARKED, WorkerState.PARKED]
    for name in ("activation", "pool.main"):
        states.note(ChildStarted(actor=name, supervisor="atlas", incarnation=2, took=0.0))
    assert seen() == [WorkerState.PAUSED, WorkerState.ACTIVE]
    states.pause("activation", paused=False)
    assert seen() == [WorkerState.ACTIVE, WorkerState.ACTIVE]
    states.pause("nobody", paused=True)
    assert states.is_paused("nobody")
