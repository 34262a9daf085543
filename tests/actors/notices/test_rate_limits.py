"""The pace: never more than a bucket allows in any stretch of time, and not a word while Telegram says to wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.notices.rate_limits import RateLimits, TokenBucket

arrivals = st.lists(st.floats(0, 5), max_size=60)


@given(arrivals, st.sampled_from([1.0, 7.0, 30.0]), st.integers(1, 5))
def test_a_bucket_never_lets_through_more_than_burst_and_rate(waits: list[float], rate: float, burst: int) -> None:
    bucket, now = TokenBucket(rate, burst), 100.0
    turns = []
    for wait in waits:
        now += wait
        expected = bucket.peek(now)
        turns.append(bucket.reserve(now))
        assert turns[-1] == expected >= now
    assert turns == sorted(turns)
    for first in range(len(turns)):
        for last in range(first, len(turns)):
            allowed = burst + rate * (turns[last] - turns[first])
            assert last - first + 1 <= allowed + 1e-6


@given(arrivals)
def test_a_bucket_gives_everybody_the_earliest_turn_there_is(waits: list[float]) -> None:
    bucket, now, before = TokenBucket(10.0), 0.0, -1.0
    for wait in waits:
        now += wait
        turn = bucket.reserve(now)
        assert abs(turn - max(now, before + 0.1)) < 1e-6
        before = turn


def test_chats_do_not_wait_for_each_other() -> None:
    pace = RateLimits(rate=1000.0, chat_rate=1.0)
    assert pace.reserve(1, 0.0) == 0.0
    assert pace.next_allowed_at(1, 0.0) == 1.0
    assert pace.next_allowed_at(2, 0.0) == 0.0


def test_the_bot_as_a_whole_has_a_rate() -> None:
    pace = RateLimits(rate=10.0, chat_rate=1.0)
    assert [round(pace.reserve(chat, 0.0), 6) for chat in range(4)] == [0.0, 0.1, 0.2, 0.3]


def test_a_refused_chat_is_closed_alone() -> None:
    pace = RateLimits(rate=10.0, chat_rate=1.0)
    assert not pace.on_too_many_requests(1, 0.0, 30.0)
    assert pace.closed_until(1, 5.0) == 30.0
    assert pace.closed_until(2, 5.0) == 5.0
    assert pace.closed_for(5.0) == 0.0
    assert pace.closed_until(1, 31.0) == 31.0


def test_a_second_chat_refused_meanwhile_closes_everything() -> None:
    pace = RateLimits(rate=10.0, chat_rate=1.0)
    pace.on_too_many_requests(1, 0.0, 30.0)
    assert pace.on_too_many_requests(2, 10.0, 5.0)
    assert pace.closed_until(3, 10.0) == 15.0
    assert pace.closed_for(12.0) == 3.0
    assert pace.closed_until(1, 20.0) == 30.0


def test_a_chat_refused_again_is_not_taken_for_two() -> None:
    pace = RateLimits(rate=10.0, chat_rate=1.0)
    pace.on_too_many_requests(1, 0.0, 30.0)
    assert not pace.on_too_many_requests(1, 10.0, 5.0)
    assert pace.closed_until(1, 16.0) == 30.0


def test_two_chats_refused_one_after_the_other_are_two_chats() -> None:
    pace = RateLimits(rate=10.0, chat_rate=1.0)
    pace.on_too_many_requests(1, 0.0, 5.0)
    assert not pace.on_too_many_requests(2, 6.0, 5.0)


def test_the_pace_forgets_chats_that_have_been_quiet() -> None:
    pace = RateLimits(rate=1e6, chat_rate=1.0)
    for chat in range(25_000):
        pace.reserve(chat, float(chat))
    assert len(pace._chats) <= 10_002
