"""Assertions about events hold for what happened in that order, and show what happened otherwise."""

from __future__ import annotations

import attrs
import pytest

from runtime.events import Event, EventBus
from runtime.testing.system import assert_events, happened


@attrs.frozen
class Opened(Event):
    """A door."""

    door: int


@attrs.frozen
class OpenedByForce(Opened):
    """A door, broken."""


@attrs.frozen
class Closed(Event):
    """The harness."""


HARNESS = (Opened("anna", 1), Opened("bert", 2), OpenedByForce("bert", 3), Closed("anna"))


def test_events_seen_in_order_with_others_between_pass() -> None:
    assert_events(HARNESS, Opened, Closed)
    assert_events(HARNESS, happened(Opened, door=2), OpenedByForce, happened(Closed, actor="anna"))
    assert_events(HARNESS)


def test_a_kind_stands_for_its_subclasses_as_well() -> None:
    assert_events(HARNESS, happened(Opened, door=3))


def test_the_wrong_order_fails_and_shows_all_events() -> None:
    with pytest.raises(AssertionError, match=r"never seen after Closed\(\): Opened\(door=1\)") as caught:
        assert_events(HARNESS, Closed, happened(Opened, door=1))
    assert "OpenedByForce: bert: OpenedByForce door=3" in str(caught.value)


def test_one_event_does_not_stand_for_two_expected_ones() -> None:
    with pytest.raises(AssertionError, match=r"never seen after Closed\(\): Closed\(\)"):
        assert_events(HARNESS, Closed, Closed)


def test_a_fact_that_differs_is_another_event() -> None:
    with pytest.raises(AssertionError, match=r"never seen: Opened\(door=4\)"):
        assert_events(HARNESS, happened(Opened, door=4))


def test_exactly_allows_nothing_before_between_or_after() -> None:
    assert_events(HARNESS, Opened, Opened, OpenedByForce, Closed, exactly=True)
    with pytest.raises(AssertionError, match=r"expected Closed\(\), but this happened: bert: Opened door=2"):
        assert_events(HARNESS, Opened, Closed, exactly=True)
    with pytest.raises(AssertionError, match="expected nothing more, but this happened: anna: Closed"):
        assert_events(HARNESS, Opened, Opened, Opened, exactly=True)
    with pytest.raises(AssertionError, match="expected nothing more"):
        assert_events(HARNESS, exactly=True)


def test_one_actor_can_be_looked_at_alone() -> None:
    assert_events(HARNESS, Opened, Closed, actor="anna", exactly=True)
    with pytest.raises(AssertionError, match="never seen") as caught:
        assert_events(HARNESS, Closed, actor="bert")
    assert "anna" not in str(caught.value)


def test_a_bus_is_looked_at_as_far_as_it_remembers() -> None:
    bus = EventBus(ring=2, log=None)
    for event in HARNESS:
        bus.emit(event)
    assert_events(bus, OpenedByForce, Closed, exactly=True)


def test_no_events_at_all_are_said_to_be_none() -> None:
    with pytest.raises(AssertionError, match="no events at all"):
        assert_events((), Closed)


def test_a_fact_that_the_kind_lacks_is_a_mistake_in_the_test() -> None:
    with pytest.raises(TypeError, match=r"Opened has no \['window'\]; it has \['actor', 'door'\]"):
        happened(Opened, window=1)
