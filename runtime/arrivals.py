"""When what waits in a mailbox came, without an envelope around each message."""

from __future__ import annotations


class Arrivals:
    """Marks (position, time) in the sequence of messages.

    Stamping each message would cost a clock read per tell. But inside one turn of the loop all come at the same time, so
    the mailbox sets a mark for the first of them, and for every one while a handler keeps the actor busy. Reading them is
    exact to one turn of the loop.
    """

    __slots__ = ("_limit", "_marks")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._marks: list[tuple[int, float]] = []

    @property
    def is_full(self) -> bool:
        """Whether the marks of what no longer waits should be forgotten before another is set."""
        return len(self._marks) >= self._limit

    def mark(self, position: int, time: float) -> None:
        """The message at `position`, and those after it up to the next mark, came at `time`."""
        self._marks.append((position, time))

    def since(self, first_waiting: int) -> float:
        """When the message at `first_waiting` came."""
        self.forget_before(first_waiting)
        return self._marks[0][1]

    def forget_before(self, position: int) -> None:
        """Messages before `position` do not wait any more."""
        gone = 0
        while gone + 1 < len(self._marks) and self._marks[gone + 1][0] <= position:
            gone += 1
        del self._marks[:gone]
