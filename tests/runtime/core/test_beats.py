from __future__ import annotations

import math

from runtime.core import beats as beats_module
from runtime.core.beats import Beats, WorkerState


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_new_system_has_no_beats_yet() -> None:
    beats = Beats()
    assert (beats.event_loop, beats.healthcheck, beats.last_pool_wait_spike) == (None, None, None)
    assert not beats.workers
    assert not beats.pools


def test_a_worker_writes_its_life_in_plain_slots() -> None:
    clock = Clock()
    beat = Beats(clock).worker("activation")
    assert (beat.next_due, beat.handling_since, beat.state) == (math.inf, None, WorkerState.ACTIVE)

    beat.idle_until(beat.due_in(30))
    assert (beat.next_due, beat.handling_since, beat.progressed_at) == (130.0, None, 100.0)

    clock.now = 130.0
    beat.begin(limit=15.0)
    assert (beat.handling_since, beat.progressed_at, beat.limit) == (130.0, 130.0, 15.0)

    clock.now = 140.0
    beat.progress()
    assert (beat.handling_since, beat.progressed_at) == (130.0, 140.0)

    clock.now = 141.0
    beat.done(next_due=beat.due_in(300))
    assert (beat.next_due, beat.handling_since, beat.progressed_at) == (441.0, None, 141.0)


def test_a_beat_belongs_to_its_name() -> None:
    beats = Beats()
    assert beats.worker("a") is beats.worker("a")
    assert beats.worker("a") is not beats.worker("b")
    assert beats.pool("a") is not beats.worker("a")
    beats.forget("a")
    assert sorted(beats.workers) == ["b"]
    assert not beats.pools


def test_a_reader_keeps_what_it_has_read_while_names_are_added() -> None:
    beats = Beats()
    beats.worker("a")
    seen = beats.workers
    beats.worker("b")
    assert list(seen) == ["a"]


def test_loop_probe_and_spike_are_stamped_by_the_clock() -> None:
    clock = Clock()
    beats = Beats(clock)
    beats.tick()
    clock.now = 105.0
    beats.probed()
    clock.now = 106.0
    beats.pool_wait_spike("pool.main: activation waited 5.2 s")
    assert (beats.event_loop, beats.healthcheck, beats.last_pool_wait_spike) == (100.0, 105.0, 106.0)
    assert beats.last_spike_note == "pool.main: activation waited 5.2 s"
    assert beats.now() == 106.0


def test_the_message_in_hand_is_one_slot_of_the_module() -> None:
    before = beats_module.current
    try:
        beats_module.current = ("pool.main", Clock, 5.0)
        assert beats_module.current == ("pool.main", Clock, 5.0)
    finally:
        beats_module.current = before
