"""When a key's time is over, with the backend there and away."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpn.agent.config.settings import ExpirySettings
from vpn.agent.state.expiry import BackendContact, ExpiryQueue, LastContactFile, is_over
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


EXPIRY = ExpirySettings(grace=1000.0, silence=100.0, settle=50.0)


def test_without_a_file_the_backend_counts_as_just_heard(tmp_path: Path) -> None:
    contact = LastContactFile(tmp_path).load(EXPIRY, 5000.0)
    assert contact.grace_at(5099.0) == 0 and contact.grace_at(5100.0) == 1000


def test_when_it_was_heard_and_how_long_it_has_to_catch_up_are_kept(tmp_path: Path) -> None:
    contact = LastContactFile(tmp_path).load(EXPIRY, 5000.0)
    contact.note_contact(6000.0)
    LastContactFile(tmp_path).remember(contact, 6000.0)
    again = LastContactFile(tmp_path).load(EXPIRY, 6010.0)
    assert (again.last_contact, again.settled_at) == (6000.0, 6050.0)


def test_it_is_written_at_most_once_a_minute_but_the_end_of_a_silence_at_once(tmp_path: Path) -> None:
    file = LastContactFile(tmp_path)
    contact = file.load(EXPIRY, 5000.0)
    for now in (5000.0, 5059.0):
        contact.note_contact(now)
        file.remember(contact, now)
    assert file.path.stat().st_mtime == 5000.0
    contact.note_contact(5061.0)
    file.remember(contact, 5061.0)
    assert file.path.stat().st_mtime == 5061.0 and file.path.read_bytes() == b""
    contact.note_contact(5061.0 + EXPIRY.silence)
    file.remember(contact, 5061.0 + EXPIRY.silence)
    assert file.path.stat().st_mtime == 5161.0 and float(file.path.read_text()) == 5211.0


@pytest.mark.parametrize(
    ("heard", "content", "last_contact", "settled_at"),
    [
        (9000.0, "9050.000", 5000.0, 5050.0),
        (4900.0, "rubbish", 4900.0, float("-inf")),
        (4900.0, "nan", 4900.0, float("-inf")),
    ],
    ids=["the clock was set back", "damaged", "no number"],
)
def test_what_cannot_be_makes_no_grace_longer(
    tmp_path: Path, heard: float, content: str, last_contact: float, settled_at: float
) -> None:
    (tmp_path / "heard").write_text(content)
    os.utime(tmp_path / "heard", (heard, heard))
    contact = LastContactFile(tmp_path).load(EXPIRY, 5000.0)
    assert (contact.last_contact, contact.settled_at) == (last_contact, settled_at)


def test_a_disk_that_takes_nothing_is_tried_once_a_minute_and_fails_nobody(tmp_path: Path) -> None:
    file = LastContactFile(tmp_path)
    contact = file.load(EXPIRY, 5000.0)
    (tmp_path / "heard.new").mkdir()  # in the way
    for now in (6000.0, 6001.0):
        contact.note_contact(now)
        file.remember(contact, now)
    assert not file.path.exists()
    (tmp_path / "heard.new").rmdir()
    file.remember(contact, 6030.0)
    assert not file.path.exists()
    file.remember(contact, 6061.0)
    assert float(file.path.read_text()) == 6050.0
