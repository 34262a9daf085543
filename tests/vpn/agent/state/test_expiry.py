"""When a key's time is over, with the backend there and away."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpn.agent.state.expiry import BackendContact, ExpiryQueue, is_over
from vpn.protocol import KeySpec


def ending(name: str, seconds: float | None) -> KeySpec:
    """A key with this end in Unix seconds."""
    return KeySpec(name, uuid4(), expires_at=None if seconds is None else datetime.fromtimestamp(seconds, UTC))


@pytest.mark.parametrize(
    ("end", "now", "grace", "over"),
    [
        (100, 99.999, 0, False),
        (100, 100, 0, True),
        (100, 100, 50, False),
        (100, 149.9, 50, False),
        (100, 150, 50, True),
        (None, 1e12, 0, False),
    ],
)
def test_a_key_is_over_exactly_at_its_end_and_the_grace(
    end: float | None, now: float, grace: float, over: bool
) -> None:
    assert is_over(ending("a", end), now, grace) is over


@pytest.mark.parametrize(
    ("end", "now", "over"),
    [(100, 149, True), (101, 149, False), (100, 99, False), (None, 149, False)],
    ids=["was ended", "was not", "the clock had been wrong", "has no end"],
)
def test_what_was_ended_stays_so_whatever_grace_begins_later(end: float | None, now: float, over: bool) -> None:
    assert is_over(ending("a", end), now, 1000, ended_upto=100) is over


def contact() -> BackendContact:
    """A backend heard at second 0; silent from 900 s on, then a day of grace, settled 300 s after it is back."""
    return BackendContact(last_contact=0.0)


@pytest.mark.parametrize(
    ("heard", "now", "grace"),
    [
        ([], 0, 0),
        ([], 899.9, 0),
        ([], 900, 86_400),
        ([], 1e9, 86_400),
        ([800], 1600, 0),
        ([800], 1700, 86_400),
        ([2000], 2000, 86_400),
        ([2000], 2299.9, 86_400),
        ([2000], 2300, 0),
        ([2000, 2100, 2200], 2300, 0),
        ([2000, 1990], 2000 + 899, 0),
    ],
    ids=[
        "just heard",
        "still within the silence allowed",
        "silent",
        "silent for ever",
        "heard again in time",
        "silent since then",
        "back, and catching up",
        "still catching up",
        "settled",
        "hearing more does not make settling longer",
        "the clock was set back",
    ],
)
def test_grace_is_given_while_the_backend_cannot_extend_anybody(heard: list[float], now: float, grace: float) -> None:
    tested = contact()
    for moment in heard:
        tested.note_contact(moment)
    assert tested.grace_at(now) == grace


@settings(deadline=None)  # a busy machine is not a failure
@given(
    st.lists(st.floats(0, 5000), max_size=5).map(sorted),
    st.floats(0, 10_000),
    st.floats(0, 10_000),
)
def test_the_grace_never_changes_before_it_is_said_to(heard: list[float], wait: float, further: float) -> None:
    tested = contact()
    for moment in heard:
        tested.note_contact(moment)
    now = tested.last_contact + wait
    change = tested.next_change(now)
    assert change > now
    later = now + further
    if later < change:
        assert tested.grace_at(later) == tested.grace_at(now)


def test_nothing_more_changes_while_it_stays_silent() -> None:
    assert contact().next_change(900) == math.inf
    assert contact().next_change(0) == 900


def test_due_keys_come_out_once_and_in_order() -> None:
    queue = ExpiryQueue()
    for spec in (ending("late", 300), ending("first", 100), ending("never", None), ending("second", 200)):
        queue.add(spec)
    assert queue.next_end() == 100
    assert queue.pop_due(99.9, 0) == []
    assert queue.pop_due(200, 0) == [("first", 100), ("second", 200)]
    assert queue.pop_due(200, 0) == []
    assert queue.pop_due(349, 50) == []
    assert queue.pop_due(350, 50) == [("late", 300)]
    assert queue.next_end() is None
