"""Messages: frozen values between actors, requests that are answered, the control messages of the runtime, and the
envelope that carries a message's correlation id.

Only a message that was told under a correlation id travels in an envelope; any other lies in its lane as it is, which
keeps the hottest call of the system cheap.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar, Final, Generic, TypeVar

import attrs

from runtime.correlation import correlation_id

R = TypeVar("R")


@attrs.frozen
class Message:
    """Base of all messages. Subclasses are `@attrs.frozen`.

    A message travels in the bounded user lane, in order for each pair of sender and receiver, and is never dropped
    unless its class sets `droppable` and the mailbox's overflow policy drops.
    """

    droppable: ClassVar[bool] = False
    """Whether an overflowing mailbox with a dropping policy may lose messages of this class."""

    in_control_lane: ClassVar[bool] = False
    coalesces: ClassVar[bool] = False


@attrs.frozen
class Request(Message, Generic[R]):
    """A message that is answered with an R: `class GetSize(Request[int])`."""


@attrs.frozen
class Control(Message):
    """A message of the control lane: served before all user messages, never bounded, never dropped.

    For the few messages that must get through to a busy or suspended actor; anything frequent belongs in the user lane.
    """

    in_control_lane: ClassVar[bool] = True


@attrs.frozen
class Stop(Control):
    """Finish the current message, run `on_stop`, end. What still waits stays in the mailbox."""

    reason: str = ""


@attrs.frozen
class Down(Control):
    """What a monitor reports, once: the incarnation it watched is gone."""

    name: str
    incarnation: int
    reason: str
    """An ExitReason's value, or "dead" where nothing was running when the monitor was placed."""


@attrs.frozen
class Back(Control):
    """What a monitor with `when="back"` reports, once: the actor serves, in this incarnation."""

    name: str
    incarnation: int


@attrs.frozen
class Gone(Control):
    """What a monitor with `when="gone"` reports, once: no other incarnation is planned; only an operator may bring one back."""

    name: str
    reason: str
    """`dead` (stopped for good) or `parked`."""


@attrs.frozen
class WakeUp(Control):
    """There may be work: look now. Several that wait are one."""

    coalesces: ClassVar[bool] = True


@attrs.frozen
class Suspend(Control):
    """Serve only the control lane until Resume. The runtime handles it; it survives restarts."""


@attrs.frozen
class Resume(Control):
    """Serve the user lane again."""


@attrs.frozen
class Inspect(Control, Request[Mapping[str, object]]):
    """Answered by the runtime itself with the actor's visible state and its own `inspect()`."""


class Delivery(enum.Enum):
    """What became of a `tell`."""

    ACCEPTED = "accepted"
    """It waits in the mailbox and will be handled unless the receiver stops for good before."""
    FULL = "full"
    """No room: not delivered. Only the sender is told."""
    DEAD = "dead"
    """The actor has stopped for good, or is parked: not delivered."""


class Postponed(enum.Enum):
    """The type of POSTPONE, for handlers' annotations."""

    POSTPONE = "postpone"


POSTPONE: Final = Postponed.POSTPONE
"""Returned by a handler that cannot deal with a message in its present state: it is kept, in order, and handled again
after `context.unpostpone()`."""


current_correlation = correlation_id.get


class Envelope:
    """The envelope of one told message."""

    __slots__ = ("correlation", "message")

    def __init__(self, message: Message, correlation: str) -> None:
        self.message = message
        self.correlation = correlation


def enveloped(message: Message) -> Message | Envelope:
    """The message as it travels: in a letter if the caller works under a correlation id."""
    correlation = current_correlation()
    return Envelope(message, correlation) if correlation else message


def told_message(item: object) -> Message | None:
    """The told message in an item of a lane; None if the item is a request that was asked."""
    if isinstance(item, Envelope):
        return item.message
    return item if isinstance(item, Message) else None
