"""Each event of supervision says one line that a person can read."""

from __future__ import annotations

import pytest

from runtime.core.incarnation import StopCutOff
from runtime.events import Event
from runtime.supervision.events import (
    ChildEnded,
    ChildEndedLate,
    ChildHookFailed,
    ChildParked,
    ChildRestarting,
    ChildStarted,
    ChildUnstopped,
    Decision,
    SupervisorGaveUp,
    SupervisorStopped,
    SupervisorStopping,
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ChildStarted("a", "top", 2, 0.0031), "a started (incarnation 2, 3.1 ms)"),
        (
            ChildEnded("a", "top", 2, "shutdown", "", "Work", 1.5, Decision.STOPPED),
            "a shutdown after 1.500 s (incarnation 2, last message Work); stopped",
        ),
        (
            ChildEnded("a", "top", 1, "normal", "", None, 0.25, Decision.STAY_DOWN),
            "a normal after 0.250 s (incarnation 1); stay down",
        ),
        (ChildRestarting("a", "top", 1, 0.0), "a restarts now (restart 1 in a row)"),
        (
            ChildRestarting("a", "top", 3, 1.25, ("b", "c")),
            "a restarts in 1.25 s together with b, c (restart 3 in a row)",
        ),
        (ChildParked("a", "top", "it crashed"), "a is parked: it crashed; `atlas restart a` starts it again"),
        (
            ChildUnstopped("a", "top", 2, None, 6.0, "stack"),
            "a did not stop within 6.0 s and ignores cancellation (incarnation 2, last message none); "
            "nothing is started in its place",
        ),
        (
            StopCutOff("a", 2, 5.04),
            "a was cut off in its on_stop after 5.0 s (incarnation 2; setting shutdown, within the time that the whole stop "
            "may take)",
        ),
        (ChildEndedLate("a", "top", 2), "a ended late (incarnation 2); it may be started again"),
        (ChildHookFailed("a", "top", "on_exit", "ValueError: x"), "a: its hook on_exit raised ValueError: x"),
        (SupervisorStopping("top", "asked", 1), "top stops 1 child: asked"),
        (SupervisorStopping("top", "asked", 3), "top stops 3 children: asked"),
        (SupervisorStopped("top", 1.5, ()), "top stopped in 1.500 s"),
        (SupervisorStopped("top", 1.5, ("a", "b")), "top stopped in 1.500 s; unstopped: a, b"),
        (SupervisorGaveUp("top", "a", "too often"), "top gave up because of a: too often"),
    ],
)
def test_each_event_says_one_line(event: Event, line: str) -> None:
    assert event.line() == line
