"""How actors reach and watch each other: references, what may run behind one, and monitors."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

from runtime.core.ask import ask
from runtime.core.mailbox import Tell
from runtime.message import Back, Down, Gone, Message, Request

if TYPE_CHECKING:
    from runtime.core.address import Address


R = TypeVar("R")


class AddressState(enum.Enum):
    """What runs at an address, if anything."""

    NEW = "new"
    """Not started yet; everything waits in the mailbox."""
    STARTING = "starting"
    """In the start handshake."""
    UP = "up"
    DOWN = "restarting"
    """Between two incarnations: told messages wait, asks fail with ActorRestarting or ActorDead."""
    PARKED = "parked"
    """Down until an operator restarts it."""
    DEAD = "dead"
    """Stopped for good."""


class Ref:
    """A stable reference to an actor: it survives the actor's restarts. Equal refs lead to the same actor."""

    __slots__ = ("__weakref__", "address", "name", "tell")

    tell: Tell
    """Deliver without waiting; returns ACCEPTED, FULL or DEAD. Never raises, never waits; one sender's order is kept."""

    def __init__(self, address: Address) -> None:
        self.address: Final = address
        """For the runtime; actors have no business with it."""
        self.name: Final = address.name
        # The mailbox's own method, so that the hottest call of the system has one frame less.
        self.tell = address.mailbox.put

    @property
    def incarnation(self) -> int:
        """The number of the incarnation that runs now or ran last; 0 before the first."""
        return self.address.incarnation

    async def send(self, message: Message) -> None:
        """Deliver, waiting for room in the mailbox.

        Atomic: when it returns, the message was delivered; when it raises (cancellation included) it was not. Raises
        ActorDead if the actor has stopped for good, WouldDeadlock if the wait could never end, LeaseHeldAcrossCall.
        """
        await self.address.send(message)

    async def ask(self, message: Request[R], *, within: float) -> R:
        """Deliver and wait for the reply, for at most `within` seconds, and never longer than the deadline of the
        message whose handler asks.

        Raises ActorCrashed, ActorRestarting, ActorDead at once when that happens; AskTimeout (or its subclass MailboxFull);
        WouldDeadlock if the callee waits for the asker; LeaseHeldAcrossCall; and whatever the callee failed the reply
        with. After a cancellation or AskTimeout the request may have been handled or not.
        """
        return await ask(self.address, message, within)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.address is self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<Ref {self.name} #{self.incarnation}>"


MonitorKind: TypeAlias = Literal["down", "back", "gone"]

AT_ONCE_PER_SECOND: Final = 16
"""Monitors of one watcher that report at once within a second; further ones report a second later."""


class Monitor:
    """Tells its watcher once, through the control lane, that the watched actor's incarnation is gone (`down`), that the actor
    serves (`back`), or that it is gone for good (`gone`).

    Placed where that is so already, it reports at once. It dies with the incarnation that placed it.
    """

    __slots__ = ("_watched", "_watcher", "kind")

    def __init__(self, watcher: Address, watched: Address, kind: MonitorKind = "down") -> None:
        self._watcher = watcher
        self._watched = watched
        self.kind: Final = kind

    def place(self) -> None:
        """Start watching, or report at once."""
        message = self.due_already()
        if message is None:
            self.watch()
        else:
            self._watcher.mailbox.put(message)

    def due_already(self) -> Message | None:
        """What it would report at once."""
        watched = self._watched
        if self.kind == "down":
            return None if watched.is_up else Down(watched.name, watched.incarnation, "dead")
        if self.kind == "back":
            return Back(watched.name, watched.incarnation) if watched.state.value == "up" else None
        return Gone(watched.name, watched.state.value) if watched.is_gone else None

    def watch(self) -> None:
        """Report when it comes to be so."""
        self._watched.monitors[self] = None

    def report(self, message: Message) -> None:
        """Tell the watcher; the monitor is spent."""
        self._watched.monitors.pop(self, None)
        self._watcher.mailbox.put(message)

    def cancel(self) -> None:
        """Stop watching. A report that is already in the mailbox still comes."""
        self._watched.monitors.pop(self, None)
