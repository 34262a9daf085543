"""How actors reach and watch each other: references, and monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from runtime.core.ask import ask
from runtime.core.mailbox import Tell
from runtime.message import Down, Message, Request

if TYPE_CHECKING:
    from runtime.core.address import Address


R = TypeVar("R")


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


class Monitor:
    """Tells its watcher once, through the control lane, that the watched incarnation is gone.

    Placed on an actor of which nothing runs, it reports at once. It dies with the incarnation that placed it.
    """

    __slots__ = ("_watched", "_watcher")

    def __init__(self, watcher: Address, watched: Address) -> None:
        self._watcher = watcher
        self._watched = watched

    def place(self) -> None:
        """Start watching."""
        if self._watched.is_up:
            self._watched.monitors[self] = None
        else:
            self.report("dead")

    def report(self, reason: str) -> None:
        """Tell the watcher; the monitor is spent."""
        self._watched.monitors.pop(self, None)
        self._watcher.mailbox.put(Down(self._watched.name, self._watched.incarnation, reason))

    def cancel(self) -> None:
        """Stop watching. A Down that is already in the mailbox still comes."""
        self._watched.monitors.pop(self, None)
