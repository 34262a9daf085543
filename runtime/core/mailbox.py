"""A mailbox: a control lane and a bounded user lane, two trio memory channels owned by an actor's address.

Statistics keep trio's names. Three things a memory channel cannot do are done beside it: waiting for whichever of two
lanes gets something first (`wait`, a wakeup in `trio.lowlevel`), putting messages back in front (`replay`), and knowing
how long a message has waited (`Arrivals`) without an envelope around each.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import attrs
import trio

from runtime.core.ask import AskStage, PendingAsk
from runtime.errors import TooManyPostponed
from runtime.message import Delivery, Envelope, Message, current_correlation, enveloped, told_message


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


DEFAULT_CAPACITY = 64

# Looking up a member of an enum costs a quarter of a whole tell.
_ACCEPTED, _FULL, _DEAD = Delivery.ACCEPTED, Delivery.FULL, Delivery.DEAD

QueueEntry: TypeAlias = Message | Envelope | PendingAsk
"""A queue entry: a plain message, a message with a correlation id (Envelope), or a pending ask."""


class Overflow(enum.StrEnum):
    """What happens to a message that finds the user lane full."""

    REFUSE = "refuse"
    """`tell` returns FULL, `send` and `ask` wait for room."""
    DROP_OLDEST = "drop_oldest"
    """The oldest droppable message that waits makes room; without one: refuse."""
    DROP_NEWEST = "drop_newest"
    """A new droppable message is dropped, `tell` returns FULL and `send` returns at once; any other: refuse."""


class Tell(Protocol):
    """The type of `Ref.tell`."""

    def __call__(self, message: Message) -> Delivery:
        """Deliver without waiting."""
        ...


@attrs.frozen
class MailboxStatistics:
    """What waits, by trio's names."""

    current_buffer_used: int
    """User messages waiting, those of `replayed` included."""
    max_buffer_size: int
    tasks_waiting_send: int
    peak_buffer_used: int
    control_buffer_used: int
    replayed: int
    """Of the waiting ones, those served before the lane: unpostponed, or saved over a restart."""
    postponed: int
    dropped: int
    """Lost to the overflow policy since the address exists."""
    oldest_age: float
    """Seconds the oldest user message has been waiting, exact to one turn of the loop; 0 if none waits."""


def _refuse(_: QueueEntry) -> None:
    raise trio.ClosedResourceError


class Mailbox:
    """Owned by an address. Any task puts messages in; one incarnation at a time takes them out."""

    __slots__ = (
        "_accepted",
        "_arrivals",
        "_coalescing",
        "_control_in",
        "_control_out",
        "_needs_note",
        "_now",
        "_put_user",
        "_replay",
        "_user_in",
        "_user_out",
        "_waiting",
        "_wakeup",
        "_yielding",
        "capacity",
        "control_waiting",
        "dropped",
        "overflow",
        "postponed",
        "receive_user",
        "serve_user",
        "urgent",
    )

    def __init__(self, capacity: int, overflow: Overflow, now: Callable[[], float]) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox needs room for at least one message, not {capacity}")
        self.capacity = capacity
        self.overflow = overflow
        self._now = now
        self.dropped = 0
        self.open()

    def open(self) -> None:
        """Begin with empty lanes. Only for an address that is new, or whose lanes were closed."""
        self._control_in, self._control_out = trio.open_memory_channel[QueueEntry](math.inf)
        self._user_in, self._user_out = trio.open_memory_channel[QueueEntry](self.capacity)
        self._put_user: Callable[[QueueEntry], None] = self._user_in.send_nowait
        self.receive_user = self._user_out.receive_nowait
        self.control_waiting = 0
        # Four lists at most, and mostly empty: an empty deque or set would take four to ten times the memory.
        self._coalescing: list[type[Message]] = []
        self._replay: list[QueueEntry] = []
        """Served before the lane, the next one last."""
        self.postponed: list[QueueEntry] = []
        self.serve_user = True
        self.urgent = False
        self._waiting = 0
        self._accepted = 0
        self._arrivals = Arrivals(2 * self.capacity)
        self._needs_note = True
        """Whether the next message wants more than to be put into its lane: a mark, and perhaps to wake the reader."""
        self._yielding = False
        self._wakeup: trio.lowlevel.Task | None = None

    # --- putting -----------------------------------------------------------------------------------------------------

    def put(self, message: Message) -> Delivery:
        """See Ref.tell."""
        if message.in_control_lane:
            return self._put_control(message)
        try:
            self._put_user(enveloped(message) if current_correlation() else message)
        except trio.WouldBlock:
            return self._overflowing(message)
        except trio.ClosedResourceError:
            return _DEAD
        self._accepted += 1
        if self._needs_note:
            self._note_arrival()
        return _ACCEPTED

    def put_ask(self, ask: PendingAsk) -> bool:
        """Deliver a request if there is room in its lane."""
        ask.stage = AskStage.QUEUED
        if ask.message.in_control_lane:
            self._control_in.send_nowait(ask)
            self._control_came()
            return True
        try:
            self._put_user(ask)
        except trio.WouldBlock:
            if not self._drop_oldest():
                ask.stage = AskStage.WAITING_FOR_ROOM
                return False
            self._put_user(ask)
        self._accepted += 1
        if self._needs_note:
            self._note_arrival()
        return True

    async def wait_for_room(self, item: QueueEntry) -> None:
        """Deliver as soon as there is room. Atomic with respect to cancellation. Raises trio.ClosedResourceError."""
        self._waiting += 1
        self._accepted += 1
        self._mark_arrival()
        try:
            await self._user_in.send(item)
        except BaseException:
            self._accepted -= 1
            raise
        finally:
            self._waiting -= 1
        if self.serve_user:
            self.wake_reader()

    def postpone(self, item: QueueEntry) -> None:
        """Keep an item that was taken until `unpostpone`. Raises TooManyPostponed when `capacity` are kept already."""
        if len(self.postponed) >= self.capacity:
            raise TooManyPostponed(
                f"{len(self.postponed)} messages are postponed, as many as the mailbox has room for (mailbox.capacity); "
                "an actor that never reaches a state to handle them would keep them for ever"
            )
        self.postponed.append(item)

    def unpostpone(self) -> None:
        """Put what was postponed in front of everything that waits in the user lane, in its order."""
        self._replay.extend(reversed(self.postponed))
        self.postponed.clear()
        self._refresh()
        self.wake_reader()

    def stop_accepting(self) -> None:
        """Take no further user messages; what waits is kept."""
        self._put_user = _refuse

    def resume_accepting(self) -> None:
        """Take user messages again."""
        self._put_user = self._user_in.send_nowait

    def _put_control(self, message: Message) -> Delivery:
        kind = type(message)
        if kind.coalesces:
            if kind in self._coalescing:
                return _ACCEPTED
            self._coalescing.append(kind)
        try:
            # One that may stand for several belongs to none of their senders.
            self._control_in.send_nowait(message if kind.coalesces else enveloped(message))
        except trio.ClosedResourceError:
            return _DEAD
        self._control_came()
        return _ACCEPTED

    def _control_came(self) -> None:
        self.control_waiting += 1
        self.urgent = True
        self.wake_reader()

    def _overflowing(self, message: Message) -> Delivery:
        if self._drop_oldest():
            return self.put(message)
        if self.drops(message):
            self.dropped += 1
        return _FULL

    def drops(self, message: Message) -> bool:
        """Whether this message, finding the lane full, is dropped rather than made to wait."""
        return self.overflow is Overflow.DROP_NEWEST and message.droppable

    def _drop_oldest(self) -> bool:
        """Drop the oldest droppable message of the lane; False if the policy or the lane has nothing to drop."""
        # While senders wait, taking from the channel lets one of them in behind the rest: the order could not be restored.
        if self.overflow is not Overflow.DROP_OLDEST or self._waiting:
            return False
        lane = [self.receive_user() for _ in range(self._user_out.statistics().current_buffer_used)]
        messages = [told_message(item) for item in lane]
        oldest = next((n for n, message in enumerate(messages) if message is not None and message.droppable), None)
        if oldest is not None:
            del lane[oldest]
            self.dropped += 1
        for item in lane:
            self._put_user(item)
        return oldest is not None

    # --- taking ------------------------------------------------------------------------------------------------------

    def take_urgent(self) -> QueueEntry | None:
        """The next message when `urgent` is set: control lane, then replay, then (unless suspended) the user lane."""
        if self.control_waiting:
            item = self._control_out.receive_nowait()
            self.control_waiting -= 1
            if isinstance(item, Message) and item.coalesces:
                self._coalescing.remove(type(item))
            self._refresh()
            return item
        self._refresh()
        if not self.serve_user:
            return None
        if self._replay:
            item = self._replay.pop()
            self._refresh()
            return item
        try:
            return self.receive_user()
        except trio.WouldBlock:
            return None

    def set_serving(self, serve_user: bool) -> None:
        """Serve the user lane, or only the control lane."""
        self.serve_user = serve_user
        self._refresh()
        self.wake_reader()

    def _refresh(self) -> None:
        self.urgent = bool(self.control_waiting or self._replay or not self.serve_user)

    async def wait(self) -> None:
        """Wait until something arrives in either lane; the caller has found both empty without a checkpoint since."""
        self._wakeup = trio.lowlevel.current_task()
        self._needs_note = True
        await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._wakeup = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake_reader(self) -> None:
        """Wake the reader, if it waits."""
        if self._wakeup is not None:
            trio.lowlevel.reschedule(self._wakeup)
            self._wakeup = None

    def begin_batch(self) -> None:
        """The reader will be busy: what arrives from now on may wait for long, so each arrival is marked."""
        self._needs_note = True
        self._yielding = False

    def end_batch(self) -> None:
        """The reader lets others run for one turn: what arrives meanwhile shares one mark."""
        self._needs_note = True
        self._yielding = True

    def _note_arrival(self) -> None:
        self._mark_arrival()
        if self._wakeup is not None:
            if self.serve_user:
                trio.lowlevel.reschedule(self._wakeup)
                self._wakeup = None
                self._needs_note = False
        elif self._yielding:
            self._needs_note = False

    def _mark_arrival(self) -> None:
        if self._arrivals.is_full:
            self._arrivals.forget_before(self._first_waiting())
        self._arrivals.mark(self._accepted, self._now())

    def _first_waiting(self) -> int:
        """The position of the oldest user message that waits, in the sequence of all; one beyond the last if none does."""
        lane = self._user_out.statistics()
        return self._accepted + 1 - len(self._replay) - lane.current_buffer_used - lane.tasks_waiting_send

    # --- ending ------------------------------------------------------------------------------------------------------

    def after_exit(self, keep: Callable[[Message], bool]) -> None:
        """The incarnation has ended: keep the order of what survives, and lose what belonged to it alone.

        Asks have been answered by now and leave the lanes. Of the control lane, `keep` decides.
        """
        control = [self._control_out.receive_nowait() for _ in range(self.control_waiting)]
        self.control_waiting = 0
        self._coalescing.clear()
        for item in control:
            message = told_message(item)
            if message is not None and keep(message):
                if message.coalesces:
                    self._coalescing.append(type(message))
                self._control_in.send_nowait(item)
                self._control_came()
        lane = [self.receive_user() for _ in range(self._user_out.statistics().current_buffer_used)]
        survivors: list[QueueEntry] = [
            item for item in (*self.postponed, *reversed(self._replay), *lane) if not isinstance(item, PendingAsk)
        ]
        self.postponed.clear()
        # Each message taken let one waiting sender in. If any came, they are in the lane already, behind these.
        room = 0 if self._user_out.statistics().current_buffer_used else self.capacity
        split = max(0, len(survivors) - room)
        self._replay = survivors[:split][::-1]
        for item in survivors[split:]:
            self._user_in.send_nowait(item)  # not `_put_user`, which refuses while draining
        self._refresh()
        self._needs_note = True
        self._yielding = False

    def close(self) -> Sequence[QueueEntry]:
        """Refuse everything from now on; returns the user messages that were still waiting, oldest first. May be repeated."""
        # The sending ends first: whoever waits for room learns that it was not delivered, before the lane is emptied.
        self._user_in.close()
        self._control_in.close()
        left = [*self.postponed, *reversed(self._replay)]
        self.postponed.clear()
        self._replay.clear()
        while True:
            try:
                left.append(self.receive_user())
            except (trio.EndOfChannel, trio.ClosedResourceError):
                break
        # A receiver that is closed drops its buffer silently; by now there is nothing left to drop.
        self._user_out.close()
        self._control_out.close()
        self.control_waiting = 0
        self._refresh()
        return left

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether no user message waits (postponed ones aside)."""
        return not self._replay and not self._user_out.statistics().current_buffer_used

    def statistics(self) -> MailboxStatistics:
        """A snapshot."""
        lane = self._user_out.statistics()
        first = self._first_waiting()
        waits = first <= self._accepted
        return MailboxStatistics(
            current_buffer_used=lane.current_buffer_used + len(self._replay),
            max_buffer_size=self.capacity,
            tasks_waiting_send=lane.tasks_waiting_send,
            peak_buffer_used=lane.peak_buffer_used,
            control_buffer_used=self.control_waiting,
            replayed=len(self._replay),
            postponed=len(self.postponed),
            dropped=self.dropped,
            oldest_age=self._now() - self._arrivals.since(first) if waits else 0.0,
        )

    def describe(self) -> str:
        """One phrase for error texts."""
        now = self.statistics()
        return (
            f"{now.current_buffer_used} of {now.max_buffer_size} waiting, the oldest for {now.oldest_age:.3f} s, "
            f"{now.tasks_waiting_send} senders waiting for room"
        )
