"""Assertions about what has happened, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from runtime.events import Event, EventBus


@attrs.frozen
class Happened:
    """What an event must be like. Made by `happened`."""

    kind: type[Event]
    facts: Mapping[str, object]

    def matches(self, event: Event) -> bool:
        """Whether `event` is of the kind (or a kind of it) and has these facts."""
        return isinstance(event, self.kind) and all(getattr(event, name) == fact for name, fact in self.facts.items())

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={fact!r}" for name, fact in self.facts.items())
        return f"{self.kind.__name__}({facts})"


def happened(kind: type[Event], **facts: object) -> Happened:
    """An event of that kind (or a kind of it) with these facts, the others being anything: for `assert_events`.

    Raises TypeError for a fact that the kind does not have.
    """
    known = {field.name for field in attrs.fields(kind)}
    if unknown := facts.keys() - known:
        raise TypeError(f"{kind.__name__} has no {sorted(unknown)}; it has {sorted(known)}")
    return Happened(kind, facts)


def assert_events(
    seen: EventBus | Iterable[Event], *expected: type[Event] | Happened, actor: str | None = None, exactly: bool = False
) -> None:
    """AssertionError unless the expected events were seen in this order; others may lie between them.

    `seen` is a bus (as far back as its ring reaches) or the events themselves. `actor` looks at the events of one actor only;
    `exactly` allows no others between, before or after. The error shows all events that were looked at.
    """
    events = [
        event
        for event in (seen.recent() if isinstance(seen, EventBus) else seen)
        if actor is None or event.actor == actor
    ]
    wanted = [each if isinstance(each, Happened) else happened(each) for each in expected]
    found = 0
    for event in events:
        if found < len(wanted) and wanted[found].matches(event):
            found += 1
        elif exactly:
            next_one = wanted[found] if found < len(wanted) else "nothing more"
            raise AssertionError(f"expected {next_one}, but this happened: {event.line()}\n{_story(events)}")
    if found < len(wanted):
        after = f" after {wanted[found - 1]}" if found else ""
        raise AssertionError(f"never seen{after}: {wanted[found]}\n{_story(events)}")


def _story(events: Sequence[Event]) -> str:
    if not events:
        return "no events at all"
    return "all events:\n" + "\n".join(f"  {event.kind}: {event.line()}" for event in events)
