"""The circuit breaker: a table of events and what it then allows."""

from __future__ import annotations

import pytest

from vpn.node.breaker import Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, scatter: float = 0.5, jitter: float = 0.2) -> Breaker:
    """Opens after 3 failures, for 5, 10, 20 … at most 60 seconds; `scatter` 0.5 is the middle of the jitter."""
    return Breaker(clock, jitter=jitter, random=lambda: scatter)


# Each line: what happens, then whether a call may go out, and the state. A number lets so many seconds pass.
TABLE = {
    "closed until the third failure in a row": [
        ("failure", True, CLOSED),
        ("failure", True, CLOSED),
        ("failure", False, OPEN),
    ],
    "a success in between starts the count anew": [
        ("failure", True, CLOSED),
        ("failure", True, CLOSED),
        ("success", True, CLOSED),
        ("failure", True, CLOSED),
        ("failure", True, CLOSED),
        ("failure", False, OPEN),
    ],
    "one probe after the pause, and no second beside it": [
        *[("failure", None, None)] * 3,
        (4.9, False, OPEN),
        (0.1, True, HALF_OPEN),
        (100, False, HALF_OPEN),
    ],
    "a probe that succeeds closes": [
        *[("failure", None, None)] * 3,
        (5, True, HALF_OPEN),
        ("success", True, CLOSED),
        ("failure", True, CLOSED),
    ],
    "pauses double up to the longest while probes fail": [
        *[("failure", None, None)] * 3,
        (5, True, HALF_OPEN),
        ("failure", False, OPEN),
        (9.9, False, OPEN),
        (0.1, True, HALF_OPEN),
        ("failure", False, OPEN),
        (20, True, HALF_OPEN),
        ("failure", False, OPEN),
        (40, True, HALF_OPEN),
        ("failure", False, OPEN),
        (59.9, False, OPEN),
        (0.1, True, HALF_OPEN),
        ("failure", False, OPEN),
        (60, True, HALF_OPEN),
    ],
    "the first pause again after it had closed": [
        *[("failure", None, None)] * 3,
        (5, True, HALF_OPEN),
        ("failure", None, None),
        (10, True, HALF_OPEN),
        ("success", None, None),
        *[("failure", None, None)] * 3,
        (5, True, HALF_OPEN),
    ],
    "a probe given up by its caller lets the next go out at once": [
        *[("failure", None, None)] * 3,
        (5, True, HALF_OPEN),
        ("abandon", True, HALF_OPEN),
    ],
    "giving up a call while closed says nothing": [
        ("failure", None, None),
        ("failure", None, None),
        ("abandon", True, CLOSED),
        ("failure", False, OPEN),
    ],
    "late failures while open do not lengthen the pause": [
        *[("failure", None, None)] * 3,
        (4, False, OPEN),
        ("failure", False, OPEN),
        (1, True, HALF_OPEN),
    ],
    "a late success while open closes: the callee is there": [
        *[("failure", None, None)] * 3,
        ("success", True, CLOSED),
    ],
}


@pytest.mark.parametrize("steps", TABLE.values(), ids=TABLE.keys())
def test_the_table(steps: list[tuple[str | float, bool | None, BreakerState | None]]) -> None:
    clock = Clock()
    tested = breaker(clock)
    for number, (event, allowed, state) in enumerate(steps):
        if isinstance(event, str):
            getattr(tested, event)()
        else:
            clock.now += event
        if allowed is not None:
            assert tested.allow() is allowed, f"step {number}: {event}"
            assert tested.state is state, f"step {number}: {event}"


@pytest.mark.parametrize(("scatter", "pause"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_the_pause_is_scattered_by_its_jitter(scatter: float, pause: float) -> None:
    clock = Clock()
    tested = breaker(clock, scatter)
    for _ in range(3):
        tested.failure()
    assert tested.retry_in == pytest.approx(pause)
    clock.now += pause
    assert tested.retry_in == 0.0
    assert tested.allow()


def test_jitter_never_exceeds_the_longest_pause() -> None:
    clock = Clock()
    tested = Breaker(clock, first_pause=60.0, longest_pause=60.0, random=lambda: 1.0)
    for _ in range(3):
        tested.failure()
    assert tested.retry_in == 60.0


def test_it_remembers_when_it_opened_first_and_how_much_failed() -> None:
    clock = Clock()
    tested = breaker(clock)
    for _ in range(3):
        tested.failure()
    clock.now += 5
    assert tested.allow()
    tested.failure()
    assert (tested.opened_at, tested.failures) == (1000.0, 4)
