"""One line a minute and key, and the number of those that were left out."""

from __future__ import annotations

from trio.testing import MockClock

from runtime.log.limit import LogLimit


async def test_one_line_in_an_interval_and_the_next_one_says_how_many_were_left_out(mock_clock: MockClock) -> None:
    limit = LogLimit(interval=60.0)
    assert [limit.admit("a") for _ in range(4)] == [0, None, None, None]
    assert limit.admit("b") == 0, "keys do not share an interval"
    mock_clock.jump(59.9)
    assert limit.admit("a") is None
    mock_clock.jump(0.2)
    assert [limit.admit("a"), limit.admit("a")] == [4, None]


async def test_only_so_many_keys_are_remembered(mock_clock: MockClock) -> None:
    limit = LogLimit(keys=3)
    assert [limit.admit(number) for number in range(5)] == [0] * 5
    assert limit.admit(4) is None
    assert limit.admit(0) == 0, "the oldest was forgotten"
