"""What happened, as data: every event is a frozen value with a one-line rendering.

The bus keeps the last events, tells subscribers and writes one log line. Emitting is synchronous and never waits, so
that it is allowed anywhere on the loop: in a supervisor's bookkeeping, amid a handler, in an exit hook.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Protocol

import attrs

from runtime.correlation import correlation_id
from runtime.error_text import error_text

KEPT_EVENTS = 1000
"""Events kept by a bus unless told otherwise."""


class Details(Protocol):
    """What the log says of an event beside its line: text that was redacted, and is made by the log's thread."""

    def lines(self) -> Iterator[str]:
        """Below the line, in a log for people."""
        ...

    def members(self) -> Mapping[str, object]:
        """Members of the line, in a log for machines."""
        ...


@attrs.frozen
class Event:
    """Base of all events. Subclasses are `@attrs.frozen`, carry facts as fields and say one line.

    A field with `repr=False` is no fact: it is not shown. Never put a secret, a full UUID or a message's payload in a field:
    events are shown, logged and kept.
    """

    level: ClassVar[int] = logging.INFO
    """The logging level of the event's log line: `logging.INFO`, `WARNING`, `ERROR` or `CRITICAL`."""

    actor: str
    """The actor, supervisor or part that it happened to, by name."""

    @property
    def kind(self) -> str:
        """The event's name for machines: its class name."""
        return type(self).__name__

    def facts(self) -> dict[str, object]:
        """The fields beside `actor`, in the order of declaration."""
        fields = attrs.fields(type(self))
        return {field.name: getattr(self, field.name) for field in fields if field.repr and field.name != "actor"}

    def details(self) -> Details | None:
        """What the log says beside the line; None if the line says it all."""
        return None

    def line(self) -> str:
        """One line for a person. The default lists the facts; subclasses write a sentence."""
        facts = " ".join(f"{name}={value}" for name, value in self.facts().items())
        return f"{self.actor}: {self.kind} {facts}".rstrip()


@attrs.frozen
class EventRecord:
    """An event and when it was emitted."""

    sequence: int
    """Counts from 1 for each bus, without gaps: a reader that sees a gap knows that the ring has moved on."""
    at: float
    """Wall clock, seconds since the epoch."""
    event: Event
    correlation: str = ""
    """The correlation id under which it was emitted; empty if there was none."""
    kind: str = attrs.field(init=False, eq=False, repr=False)
    """The event's name for machines."""
    facts: Mapping[str, object] = attrs.field(init=False, eq=False, repr=False)
    """The event's fields beside `actor`, in the order of declaration."""

    @kind.default
    def _kind_of_the_event(self) -> str:
        return self.event.kind

    @facts.default
    def _facts_of_the_event(self) -> Mapping[str, object]:
        return self.event.facts()


@attrs.frozen
class SubscriberFailed(Event):
    """A subscriber of the bus raised; the others and the emitter were not disturbed."""

    level: ClassVar[int] = logging.ERROR

    during: str
    error: str

    def line(self) -> str:
        """Which subscriber failed on which event, and how."""
        return f"event subscriber {self.actor} failed on {self.during}: {self.error}"


Subscriber = Callable[[Event], None]
LogSink = Callable[[EventRecord], None]


class EventBus:
    """A ring of the last events, subscribers, and a log line for each event.

    `ring` is the number of events kept; `log` writes one record, None writes none; `clock` gives the wall clock in seconds.

    `emit` is synchronous, never waits and never raises. Subscribers run inside it, in the order of subscription, so
    they must be quick; one that raises is reported as `SubscriberFailed` and stays subscribed. Use it from the loop's
    thread only.
    """

    def __init__(
        self, *, ring: int = KEPT_EVENTS, log: LogSink | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._ring: deque[EventRecord] = deque(maxlen=ring)
        self._subscribers: list[tuple[Subscriber, tuple[type[Event], ...]]] = []
        self._sequence = itertools.count(1)
        self._log = log
        self._clock = clock

    def emit(self, event: Event) -> None:
        """Keep the event, write its log line and tell every subscriber."""
        self._record(event)
        for subscriber, kinds in tuple(self._subscribers):
            if not isinstance(event, kinds):
                continue
            try:
                subscriber(event)
            except BaseException as error:  # noqa: BLE001  a watcher's bug must not reach the actor that is being watched
                name = getattr(subscriber, "__qualname__", type(subscriber).__name__)
                # Recorded only: telling the subscribers about a failing subscriber could go on for ever.
                self._record(SubscriberFailed(actor=name, during=event.kind, error=error_text(error)))

    def _record(self, event: Event) -> None:
        record = EventRecord(next(self._sequence), self._clock(), event, correlation_id.get())
        self._ring.append(record)
        if self._log is not None:
            self._log(record)

    def subscribe(self, subscriber: Subscriber, *kinds: type[Event]) -> Callable[[], None]:
        """Call `subscriber(event)` for every later event of these classes and their subclasses; without any, for every one.

        Returns a function that ends it, harmless when repeated.
        """
        entry = (subscriber, kinds or (Event,))
        self._subscribers.append(entry)

        def unsubscribe() -> None:
            if entry in self._subscribers:
                self._subscribers.remove(entry)

        return unsubscribe

    def recent(self, n: int = KEPT_EVENTS) -> list[Event]:
        """The last `n` events, oldest first."""
        return [record.event for record in self.records(n)]

    def records(self, n: int = KEPT_EVENTS) -> list[EventRecord]:
        """The last `n` events with their time and sequence number, oldest first."""
        return list(self._ring)[-n:] if n > 0 else []
