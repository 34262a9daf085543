"""Asks: pending requests, replies given later, deadlines that propagate, and the graph of which actor waits for which."""

from __future__ import annotations

import enum
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, TypeVar

import trio
from outcome import Error, Outcome, Value

from runtime.core.lease_guard import current_lease, refuse_if_leased
from runtime.correlation import correlation_id
from runtime.errors import AskTimeout, MailboxFull, WouldDeadlock
from runtime.message import Message, Request

if TYPE_CHECKING:
    from runtime.core.address import Address


R = TypeVar("R")


class AskStage(enum.Enum):
    """How far a request has come."""

    WAITING_FOR_ROOM = "waiting for room in the mailbox"
    QUEUED = "waiting in the mailbox"
    HANDLED = "being handled"
    POSTPONED = "postponed by its handler"
    """Waiting in the mailbox again; but a handler has seen it, and may have done something."""
    DEFERRED = "deferred"


class CallContext:
    """On whose behalf the current task runs: the actor, and the deadline that caps its asks.

    One per incarnation for its handlers (and whatever tasks those open inside themselves), one per task of the actor.
    """

    __slots__ = ("address", "blocks_actor", "deadline", "incarnation", "waits")

    def __init__(self, address: Address, incarnation: int, *, blocks_actor: bool, deadline: float = math.inf) -> None:
        self.address = address
        self.incarnation = incarnation
        self.blocks_actor = blocks_actor
        """Whether the actor handles no message while this call waits: true for handlers and hooks, false for tasks."""
        self.deadline = deadline
        """Of the message being handled, on trio's clock; infinity if it has none."""
        self.waits: dict[WaitEdge, None] = {}


current_call_context: ContextVar[CallContext | None] = ContextVar("current_call", default=None)
"""The actor that the current task works for; None outside all actors."""


class WaitEdge:
    """An edge of the graph of waiting: the caller waits until `callee` handles `message`."""

    __slots__ = ("callee", "message", "stage", "task")

    def __init__(self, callee: Address, message: Message) -> None:
        self.callee = callee
        self.message = message
        self.stage = AskStage.WAITING_FOR_ROOM
        self.task: trio.lowlevel.Task | None = None

    @property
    def needs_callee(self) -> bool:
        """Whether the callee must be free to handle messages for this wait to end.

        Not so once it deferred the reply: then some task of it answers, and nobody can know which.
        """
        return self.stage is not AskStage.DEFERRED


class PendingAsk(WaitEdge):
    """A request on its way, and its reply. Answered at most once; later answers are refused."""

    __slots__ = ("asked_at", "correlation", "deadline", "handled_since", "outcome", "room_scope")

    def __init__(self, callee: Address, message: Message, asked_at: float, deadline: float) -> None:
        super().__init__(callee, message)
        self.asked_at = asked_at
        self.correlation = correlation_id.get()
        self.deadline = deadline
        self.handled_since = math.inf
        self.outcome: Outcome[object] | None = None
        self.room_scope: trio.CancelScope | None = None
        """Around the wait for room in the mailbox."""

    def settle(self, outcome: Outcome[object]) -> bool:
        """Give the answer and wake the asker; False if it was answered before or the asker has gone."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self.callee.asks.pop(self, None)
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None
        elif self.room_scope is not None:
            self.room_scope.cancel(reason="answered before there was room")
        return True

    async def wait(self) -> None:
        """Wait for the outcome. A cancelled wait changes nothing."""
        if self.outcome is not None:
            await trio.lowlevel.checkpoint()
            return
        self.task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


_GONE: Outcome[object] = Value(None)


async def ask(callee: Address, message: Request[R], within: float) -> R:
    """See Ref.ask."""
    if not 0 < within < math.inf:
        raise ValueError(f"an ask needs a deadline: within must be a positive number of seconds, not {within!r}")
    if current_lease.get() is not None:
        refuse_if_leased(f"ask {type(message).__name__} to {callee.name!r}")
    call = current_call_context.get()
    now = trio.current_time()
    deadline = now + within
    if call is not None and call.deadline < deadline:
        deadline = call.deadline
    pending = PendingAsk(callee, message, now, deadline)
    refusal = callee.refusal(message) or refuse_cycle(call, pending)
    if refusal is not None:
        # A refusal takes no time: without this, a caller that tries again at once would never let anybody run.
        await trio.lowlevel.checkpoint()
        try:
            raise refusal
        finally:
            del refusal  # its traceback holds this frame
    if call is not None:
        call.waits[pending] = None
    callee.asks[pending] = None
    try:
        with trio.CancelScope(deadline=deadline):
            if not callee.mailbox.put_ask(pending):
                await _wait_for_room(pending)
            await pending.wait()
        if pending.outcome is None:
            raise _timed_out(pending, within, capped=deadline < now + within)
        if isinstance(pending.outcome, Error):
            # A fresh traceback at each asker, without the runtime's own frames piling up on a shared instance.
            raise pending.outcome.error
        return pending.outcome.unwrap()  # type: ignore[return-value]  # the handler's annotation was checked against R
    finally:
        if call is not None:
            call.waits.pop(pending, None)
        callee.asks.pop(pending, None)
        # Nobody waits any more; and an error kept here would hold this frame by its traceback.
        pending.outcome = _GONE


async def _wait_for_room(pending: PendingAsk) -> None:
    with trio.CancelScope() as pending.room_scope:
        await pending.callee.mailbox.wait_for_room(pending)
    pending.room_scope = None
    if pending.stage is AskStage.WAITING_FOR_ROOM:
        pending.stage = AskStage.QUEUED


def refuse_cycle(call: CallContext | None, waiting: WaitEdge) -> WouldDeadlock | None:
    """The error to raise if this wait closed a cycle of actors each of which can only go on after the next one did."""
    if call is None or not call.blocks_actor:
        return None
    path = _path(waiting.callee, call.address)
    if path is None:
        return None
    return WouldDeadlock(waiting.callee.name, waiting.message, [call.address.name, *path])


def _path(start: Address, goal: Address) -> list[str] | None:
    """Names from `start` to `goal` along the waits of handlers, or None. Without recursion: chains may be long."""
    trail: dict[Address, Address | None] = {start: None}
    todo = [start]
    while todo:
        here = todo.pop()
        if here is goal:
            names: list[str] = []
            step: Address | None = here
            while step is not None:
                names.append(step.name)
                step = trail[step]
            return names[::-1]
        for waiting in here.waits():
            if waiting.needs_callee and waiting.callee not in trail:
                trail[waiting.callee] = here
                todo.append(waiting.callee)
    return None


def _timed_out(pending: PendingAsk, within: float, *, capped: bool) -> AskTimeout:
    callee, message = pending.callee, pending.message
    now = trio.current_time()
    waited = now - pending.asked_at
    limit = (
        f"{waited:.3f} s, what was left of the deadline of the message being handled (within={within:g})"
        if capped
        else f"within={within:g} s"
    )
    head = f"no reply from {callee.name!r} to {type(message).__name__} in {limit}: "
    if pending.stage is AskStage.WAITING_FOR_ROOM:
        text = (
            f"its mailbox had no room all the time ({callee.mailbox.describe()}); raise mailbox.capacity or send less"
        )
        return MailboxFull(callee.name, message, head + text)
    if pending.stage is AskStage.QUEUED:
        busy = callee.last_activity()
        since = "" if busy.handling_since is None else f" for {now - busy.handling_since:.3f} s"
        text = f"not handled yet ({callee.mailbox.describe()}); it was busy with {busy.message or 'nothing'}{since}"
    else:
        text = f"{pending.stage.value} for {now - pending.handled_since:.3f} s; what it did by then is unknown"
    return AskTimeout(callee.name, message, head + text)


class Deferred(Generic[R]):
    """The promise to answer a request after its handler has returned; made by `context.defer(message)`.

    The handler returns it and goes on to the next message. Its holder answers once; if the incarnation dies
    before, the asker gets ActorCrashed. It is not awaited by anyone but the asker.
    """

    __slots__ = ("_ask",)

    def __init__(self, ask: PendingAsk | None) -> None:
        self._ask = ask

    @property
    def is_open(self) -> bool:
        """Whether the caller still waits: false once answered, timed out or cancelled, and for a message that was told."""
        return self._ask is not None and self._ask.outcome is None

    @property
    def deadline(self) -> float:
        """Time on trio's clock until which the caller waits; infinity if the message was told."""
        return float("inf") if self._ask is None else self._ask.deadline

    def reply(self, value: R) -> bool:
        """Answer. Returns False if the caller no longer waits: what the reply would have handed over is still yours."""
        return self._ask is not None and self._ask.settle(Value(value))

    def fail(self, error: Exception) -> bool:
        """Answer with an error, raised at the asker. Returns False if the caller no longer waits."""
        return self._ask is not None and self._ask.settle(Error(error))
