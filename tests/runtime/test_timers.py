from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from runtime.timers import Timers
from tests.runtime.messages import Note


def number(timers: Timers, now: float) -> int | None:
    """What the next timer that is due by `now` carries."""
    timer = timers.pop_due(now)
    if timer is None:
        return None
    assert isinstance(timer.message, Note)
    return timer.message.number


# S-701
async def test_they_come_in_the_order_of_their_times_and_those_of_one_time_as_they_were_set(
    mock_clock: MockClock,
) -> None:
    timers = Timers()
    for seconds, each in ((2.0, 3), (1.0, 1), (1.0, 2), (0.0, 0)):
        timers.add(seconds, Note(each))
    began = trio.current_time()
    assert timers.next_due == began
    assert [number(timers, began + 1.0) for _ in range(4)] == [0, 1, 2, None]
    assert timers.next_due == began + 2.0
    assert number(timers, began + 2.0) == 3
    assert timers.next_due == math.inf


# S-702
async def test_one_that_is_cancelled_is_neither_due_nor_counted(mock_clock: MockClock) -> None:
    timers = Timers()
    first, second = timers.add(1.0, Note(1)), timers.add(2.0, Note(2))
    first.cancel()
    first.cancel()
    assert first.is_cancelled
    assert not second.is_cancelled
    assert len(timers) == 1
    assert timers.next_due == second.due == trio.current_time() + 2.0
    assert number(timers, math.inf) == 2
    second.cancel()  # too late, and harmless
    assert len(timers) == 0


# S-705
@pytest.mark.parametrize("seconds", [-1.0, math.inf, -math.inf, math.nan])
async def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a timer needs a finite number of seconds from now"):
        Timers().add(seconds, Note(1))
