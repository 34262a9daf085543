from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event, EventBus, EventRecord, SubscriberFailed


@attrs.frozen
class Crashed(Event):
    level: ClassVar[int] = logging.ERROR

    incarnation: int
    error: str

    def line(self) -> str:
        return f"{self.actor} crashed in incarnation {self.incarnation}: {self.error}"


@attrs.frozen
class Plain(Event):
    size: int


def test_an_event_says_one_line_and_lists_its_facts() -> None:
    crashed = Crashed("worker", 3, "ValueError: no")
    assert crashed.line() == "worker crashed in incarnation 3: ValueError: no"
    assert crashed.facts() == {"incarnation": 3, "error": "ValueError: no"}
    assert crashed.kind == "Crashed"
    assert Plain("pool", 7).line() == "pool: Plain size=7"


# S-910
def test_the_ring_keeps_the_last_events_oldest_first_and_shows_gaps() -> None:
    bus = EventBus(ring=3, clock=lambda: 12.0)
    for size in range(5):
        bus.emit(Plain("pool", size))
    assert bus.recent(10) == [Plain("pool", 2), Plain("pool", 3), Plain("pool", 4)]
    assert bus.recent(2) == [Plain("pool", 3), Plain("pool", 4)]
    assert bus.recent(0) == []
    assert bus.records(1) == [EventRecord(5, 12.0, Plain("pool", 4))]


def test_subscribers_are_told_in_order_until_they_unsubscribe() -> None:
    bus = EventBus()
    seen: list[tuple[str, Event]] = []
    stop_first = bus.subscribe(lambda event: seen.append(("first", event)))
    bus.subscribe(lambda event: seen.append(("second", event)))
    bus.emit(Plain("a", 1))
    stop_first()
    stop_first()
    bus.emit(Plain("a", 2))
    assert seen == [("first", Plain("a", 1)), ("second", Plain("a", 1)), ("second", Plain("a", 2))]


def test_a_subscriber_may_name_the_events_that_it_wants() -> None:
    bus = EventBus()
    crashes: list[Event] = []
    everything: list[Event] = []
    stop = bus.subscribe(crashes.append, Crashed, SubscriberFailed)
    bus.subscribe(everything.append, Event)
    bus.emit(Plain("a", 1))
    bus.emit(Crashed("a", 1, "no"))
    stop()
    bus.emit(Crashed("a", 2, "no"))
    assert crashes == [Crashed("a", 1, "no")]
    assert everything == [Plain("a", 1), Crashed("a", 1, "no"), Crashed("a", 2, "no")]


def test_a_record_carries_the_kind_and_the_facts_of_its_event() -> None:
    record = EventRecord(1, 12.0, Crashed("worker", 3, "no"))
    assert (record.kind, record.facts) == ("Crashed", {"incarnation": 3, "error": "no"})


# S-909
def test_a_failing_subscriber_disturbs_nobody_and_is_reported() -> None:
    logged: list[EventRecord] = []
    bus = EventBus(log=logged.append)
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError(f"broken watcher of {event.actor}")

    bus.subscribe(broken)
    bus.subscribe(seen.append)
    bus.emit(Plain("a", 1))
    assert seen == [Plain("a", 1)]
    failure = bus.recent(1)[0]
    assert isinstance(failure, SubscriberFailed)
    assert failure.during == "Plain"
    assert failure.error == "RuntimeError: broken watcher of a"
    assert [record.event for record in logged] == bus.recent(2)


def test_a_subscriber_may_unsubscribe_while_it_is_told() -> None:
    bus = EventBus()
    seen: list[Event] = []

    def once(event: Event) -> None:
        seen.append(event)
        stop()

    stop = bus.subscribe(once)
    bus.emit(Plain("a", 1))
    bus.emit(Plain("a", 2))
    assert seen == [Plain("a", 1)]
