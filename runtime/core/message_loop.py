"""The message loop of an incarnation: takes, dispatches and answers messages, in batches that leave the loop to other tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio
from outcome import Error, Value

from runtime.child import StopCause, StopReason
from runtime.core import beats
from runtime.core.ask import AskStage, Deferred, PendingAsk
from runtime.correlation import correlation_id
from runtime.errors import Unhandled
from runtime.message import POSTPONE, Envelope, Inspect, Message, Resume, Stop, Suspend

if TYPE_CHECKING:
    from runtime.core.actor import Handler
    from runtime.core.incarnation import Incarnation
    from runtime.core.mailbox import QueueEntry

BATCH_MESSAGES = 64
BATCH_SECONDS = 0.001
SHORTEST_BATCH_SECONDS = 0.0001
"""Enough for 64 messages that cost next to nothing, so that a loop kept busy by others does not slow such an actor down."""
TURN_SECONDS = 0.003
"""How long a turn of the loop may take before busy actors shorten their batches: together they must not make it late."""


async def serve(run: Incarnation) -> None:
    """Handle messages until the actor is to stop. Raises what a handler raises."""
    address, actor = run.address, run.actor
    mailbox, name = address.mailbox, address.name
    instant, failpoints = actor.instant_handlers, address.services.failpoints
    receive, read_clock = mailbox.receive_user, address.read_clock
    patience, mask, last_began = BATCH_SECONDS, 3, math.inf
    while True:
        mailbox.begin_batch()
        address.is_busy = True
        now = read_clock()
        if last_began != math.inf:
            turn = now - last_began
            if turn > TURN_SECONDS:
                patience = max(patience * TURN_SECONDS / turn, SHORTEST_BATCH_SECONDS)
            elif patience < BATCH_SECONDS and turn < TURN_SECONDS / 2:
                patience = min(2 * patience, BATCH_SECONDS)
            mask = 3 if patience == BATCH_SECONDS else 0
        last_began = now
        end = now + patience
        shown_kind: type[QueueEntry] | None = None
        handle: Handler | None = None
        is_empty = False
        # Bounded: a timer that sets itself again is due again at once.
        for _ in range(BATCH_MESSAGES):
            if run.stop_reason is not None or not mailbox.serve_user or now >= end:
                break
            timer = run.timers.pop_due(now + address.clock_offset)
            if timer is None:
                break
            await _handle(run, timer.message, now)
            now = read_clock()
        for count in range(BATCH_MESSAGES):
            if mailbox.urgent:
                if run.stop_reason is not None:
                    break
                urgent = mailbox.take_urgent()
                if urgent is None:
                    is_empty = True
                    break
                item = urgent
            else:
                try:
                    item = receive()
                except trio.WouldBlock:
                    is_empty = True
                    break
            kind = item.__class__
            if kind is not shown_kind:
                handle = instant.get(kind)  # type: ignore[arg-type]  # an ask is in no table: that sends it the long way
                if handle is None or failpoints.enabled:
                    await _handle(run, item, now)
                    shown_kind = None
                    now = read_clock()
                    if now >= end or run.stop_reason is not None:
                        break
                    continue
                # Nobody else can run before the next message of this kind: what is shown stays true until then.
                shown_kind = kind
                address.handling = beats.current = (name, kind, now)
            if await handle(actor, item) is POSTPONE:  # type: ignore[misc]  # set whenever shown_kind is
                mailbox.postpone(item)
            # Handlers that cannot wait are short: reading the clock after each would cost a tenth of it all.
            if count & mask == mask:
                now = read_clock()
                if now >= end:
                    break
        address.is_busy = False
        beats.current = None
        if run.stop_reason is not None:
            return
        if not is_empty:
            mailbox.end_batch()
            await trio.lowlevel.checkpoint()
        elif address.is_draining and mailbox.is_empty:
            run.stop(StopReason(StopCause.TERMINATED, "drained"))
            return
        else:
            last_began = math.inf
            due = run.timers.next_due if mailbox.serve_user else math.inf
            if due == math.inf:
                await mailbox.wait()
            else:
                with trio.CancelScope(deadline=due):
                    await mailbox.wait()


async def _handle(run: Incarnation, item: QueueEntry, now: float) -> None:
    """Anything but the plain case: asks, letters, control messages, ones without a handler, and all while failpoints count."""
    message = item
    if not isinstance(message, Message):
        if message.correlation and message.correlation != correlation_id.get():
            await _handle_correlated(run, message, now)
            return
        if isinstance(message, PendingAsk):
            await _answer(run, message, now)
            return
        message = message.message
    address, kind = run.address, type(message)
    handle = run.actor.handlers.get(kind)
    if handle is not None:
        address.handling = beats.current = (address.name, kind, now)
        failpoints = address.services.failpoints
        if failpoints.enabled:
            failpoints.visit(address.name, f"before:{kind.__name__}")
        if await handle(run.actor, message) is POSTPONE:
            address.mailbox.postpone(item)
        if failpoints.enabled:
            failpoints.visit(address.name, f"after:{kind.__name__}")
    elif isinstance(message, Stop):
        run.stop(StopReason(StopCause.TERMINATED, message.reason))
    elif kind is Suspend or kind is Resume:
        address.mailbox.set_serving(kind is Resume)
    else:
        address.record_dead_letter(message, f"{type(run.actor).__name__} has no handler for it")


async def _handle_correlated(run: Incarnation, item: Envelope | PendingAsk, now: float) -> None:
    token = correlation_id.set(item.correlation)
    try:
        await _handle(run, item, now)
    finally:
        correlation_id.reset(token)


async def _answer(run: Incarnation, ask: PendingAsk, now: float) -> None:
    address, message, kind = run.address, ask.message, type(ask.message)
    if ask.outcome is not None:
        return  # the asker has gone, and with it the reason to do anything
    time = now + address.clock_offset
    if ask.deadline <= time:
        address.record_dead_letter(message, "its deadline had passed")
        address.expired += 1
        return
    handle = run.actor.handlers.get(kind)
    if handle is None:
        if kind is Inspect:
            ask.settle(Value(address.inspect()))
        else:
            known = [handled.__name__ for handled in run.actor.handlers]
            ask.settle(Error(Unhandled(address.name, message, known)))
        return
    address.handling = beats.current = (address.name, kind, now)
    ask.stage = AskStage.HANDLED
    ask.handled_since = time
    run.current_ask = ask
    run.call.deadline = ask.deadline
    failpoints = address.services.failpoints
    if failpoints.enabled:
        failpoints.visit(address.name, f"before:{kind.__name__}")
    result = await handle(run.actor, message)
    if failpoints.enabled:
        failpoints.visit(address.name, f"after:{kind.__name__}")
    run.current_ask = None
    run.call.deadline = math.inf
    deferred, run.deferred = run.deferred, None
    if result is POSTPONE:
        ask.stage = AskStage.POSTPONED
        address.mailbox.postpone(ask)
    elif deferred is None and not isinstance(result, Deferred):
        ask.settle(Value(result))
    elif result is not deferred:
        raise TypeError(
            f"the handler of {kind.__name__} in {type(run.actor).__name__} must return the Deferred that it made with "
            f"context.defer(message), and nothing else; it returned {type(result).__name__}"
        )
