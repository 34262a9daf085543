"""An actor's address: the stable thing behind a name. It owns the mailbox and survives the incarnations."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import trio
from outcome import Error

from runtime.child import IDLE, Activity, CrashDetails, Exit, ExitReason, StopCause, StopReason
from runtime.core.actor import Actor
from runtime.core.ask import AskStage, PendingAsk, WaitEdge, current_call_context, refuse_cycle
from runtime.core.checks import refuse_forgotten_fields
from runtime.core.incarnation import Incarnation, how_it_ended
from runtime.core.lease_guard import current_lease, refuse_if_leased
from runtime.core.mailbox import DEFAULT_CAPACITY, Mailbox, Overflow
from runtime.core.readiness import OneOf, Trouble, Troubles
from runtime.core.ref import AddressState, Ref
from runtime.core.timers import clock_reader
from runtime.error_text import error_text
from runtime.errors import ActorCrashed, ActorDead, ActorRestarting, AskError
from runtime.message import Back, Delivery, Down, Gone, Message, Stop, enveloped, told_message
from runtime.plain_value import KEPT, LIVE, Bounds, plain_mapping

if TYPE_CHECKING:
    from runtime.core.beats import Handling
    from runtime.core.ref import Monitor, MonitorKind
    from runtime.core.services import Services


_SEEN = frozenset({AskStage.HANDLED, AskStage.DEFERRED, AskStage.POSTPONED})
"""Stages of a request that a handler has seen: nobody may be told that it is safe to repeat."""

_ENDING = {AddressState.STARTING: "stopping", AddressState.UP: "stopping", AddressState.DOWN: "stopped"}
"""How to call an address in these states that will not come back."""


class Address:
    """An actor's stable identity: its mailbox, its references and its open requests, over all incarnations.

    A supervisor runs it again and again (it is a Child). `make` is called for each incarnation and gives a fresh instance
    with the same start arguments. `capacity` is the number of user messages that may wait, `overflow` what happens to
    more; `stop_timeout` is in seconds and bounds `on_stop` where the stop itself has no earlier deadline.
    """

    __slots__ = (
        "_actor",
        "_end_reason",
        "_ended_by_itself",
        "_make",
        "_run",
        "_up_since",
        "_will_restart",
        "asks",
        "clock_offset",
        "expired",
        "facts",
        "handling",
        "incarnation",
        "is_busy",
        "is_draining",
        "is_paused",
        "mailbox",
        "monitors",
        "name",
        "noted",
        "one_of",
        "read_clock",
        "ref",
        "restarts",
        "services",
        "state",
        "stop_timeout",
    )

    def __init__(
        self,
        name: str,
        make: Callable[[], Actor],
        services: Services,
        *,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow = Overflow.REFUSE,
        stop_timeout: float = 5.0,
    ) -> None:
        self.name = name
        self.services = services
        self.stop_timeout = stop_timeout
        """Seconds that `on_stop` may take if the stop itself has no earlier deadline."""
        self.state = AddressState.NEW
        self.incarnation = 0
        self.restarts = 0
        self.read_clock: Callable[[], float] = time.monotonic
        self.clock_offset = 0.0
        """To be added to `read_clock()` for a time on trio's clock."""
        self.handling: Handling | None = None
        """What is handled, or was handled last: written once per message."""
        self.is_busy = False
        """Whether `handling` is going on."""
        self.is_draining = False
        self.is_paused = False
        """Suspended by an operator: holds even over a final stop and the start after it."""
        self.expired = 0
        """Requests dropped because their deadline had passed before their turn came."""
        self.facts: dict[str, str] = {}
        self.asks: dict[PendingAsk, None] = {}
        """All requests to this actor that are not answered, in order."""
        self.monitors: dict[Monitor, None] = {}
        self.mailbox = Mailbox(capacity, overflow, lambda: self.read_clock())
        self.ref = Ref(self)
        self._make = make
        self._run: Incarnation | None = None
        self._actor: Actor | None = None
        self.noted = Troubles()
        self.one_of: OneOf | None = None
        """Which of several of a kind it stands for; kept over its incarnations."""
        self._ended_by_itself = False
        """Whether the last incarnation declined to run, or came to its own end."""
        self._will_restart: bool | None = None
        """Whether another incarnation follows this one: None while it runs unasked, and until its supervisor has decided."""
        self._end_reason: str = ""
        self._up_since = 0.0

    # --- the Child protocol ------------------------------------------------------------------------------------------

    async def run(self, incarnation: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Live one incarnation. Returns after a stop, raises what the incarnation died of."""
        self.read_clock, self.clock_offset = clock_reader()
        if self.state in (AddressState.PARKED, AddressState.DEAD):
            self.mailbox.open()
        elif self.is_draining:
            self.mailbox.resume_accepting()
        if self.is_paused:
            # Before the first turn: a timer that is due goes ahead of a Suspend that waits.
            self.mailbox.set_serving(serve_user=False)
        self.restarts += self.incarnation > 0
        self.incarnation = incarnation
        self.state = AddressState.STARTING
        self.is_draining = False
        self._will_restart = None
        self.noted.clear()
        self._ended_by_itself = False
        self._actor = None
        self._actor = actor = self._make()
        self._run = run = Incarnation(self, incarnation, actor)
        await run.run(task_status)

    def check(self) -> None:
        """See ChecksItself."""
        refuse_forgotten_fields(self._make)

    def request_stop(self, reason: StopReason) -> None:
        """Finish the current message, then `on_stop`, then end. May be repeated: an earlier deadline wins."""
        if self._run is not None:
            self._run.stop(reason)
            self._answer_queued(will_restart=reason.cause is StopCause.RESTART)
            for ask in [ask for ask in self.asks if ask.stage is AskStage.POSTPONED]:
                ask.settle(Error(self._crashed(ask, "is stopping")))
            self.mailbox.put(Stop(reason.detail))  # wakes the message loop, which then looks at the reason

    def request_drain(self) -> None:
        """Refuse new user messages, handle those that were accepted, then stop."""
        self.is_draining = True
        self.mailbox.stop_accepting()
        self.mailbox.wake_reader()

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the record's name in the whole runtime
        """Fail the asks that it handled or owed, tell monitors, keep what survives.

        Asks that waited are answered by `on_decided`: only then is it known whether to repeat them makes sense.
        """
        run, self._run = self._run, None
        self.incarnation_failed(run, exit.error)
        self._end_reason = f"incarnation {exit.incarnation}: {exit.reason.value}"
        self._ended_by_itself = exit.reason in (ExitReason.IGNORED, ExitReason.NORMAL)
        self.is_busy = False
        self.services.beats.ended(self.name)
        self.facts.clear()
        if run is not None:
            run.discard()
        self._tell_monitors("down", Down(self.name, self.incarnation, exit.reason.value))
        # A stop, or what the old incarnation watched and has not seen, says nothing to the next one.
        self.mailbox.after_exit(lambda message: not isinstance(message, (Stop, Down, Back, Gone)))

    def on_decided(self, *, restarts: bool) -> None:
        """Fail the asks that waited."""
        self._answer_queued(will_restart=restarts)

    def on_parked(self, reason: str) -> None:
        """Nothing runs until an operator restarts it."""
        self._close(AddressState.PARKED, reason)

    def on_final(self, reason: str) -> None:
        """Nothing will run here any more."""
        self._close(AddressState.DEAD, reason)

    def on_forgotten(self) -> None:
        """Free the name. Refs that exist still lead here."""
        self.services.forget(self)

    def last_activity(self) -> Activity:
        """What is handled since when, or was handled last."""
        handling = self.handling
        if handling is None:
            return IDLE
        kind = handling[1] if isinstance(handling[1], str) else handling[1].__name__
        return Activity(kind, handling[2] + self.clock_offset if self.is_busy else None)

    def crash_details(self) -> CrashDetails:
        """Which of its tasks crashed, and what the actor's `inspect()` says now; for the report of its end."""
        task = None if self._run is None else self._run.failed_task
        return CrashDetails(task, self._inspect_actor(KEPT))

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """See Ref.send."""
        if current_lease.get() is not None:
            refuse_if_leased(f"send {type(message).__name__} to {self.name!r}")
        await trio.lowlevel.checkpoint_if_cancelled()
        delivery = self.mailbox.put(message)
        if delivery is Delivery.FULL and not self.mailbox.drops(message):
            await self._send_later(message)
            return
        await trio.lowlevel.cancel_shielded_checkpoint()
        if delivery is Delivery.DEAD:
            raise self._dead(message)

    async def _send_later(self, message: Message) -> None:
        waiting = WaitEdge(self, message)
        call = current_call_context.get()
        refusal = refuse_cycle(call, waiting)
        if refusal is not None:
            await trio.lowlevel.checkpoint()
            raise refusal
        if call is not None:
            call.waits[waiting] = None
        try:
            await self.mailbox.wait_for_room(enveloped(message))
        except trio.ClosedResourceError:
            raise self._dead(message) from None
        finally:
            if call is not None:
                call.waits.pop(waiting, None)

    def refusal(self, message: Message) -> AskError | None:
        """Why a request need not even be sent."""
        if self.state is AddressState.DOWN:
            return self._not_delivered(message)
        if self.state in (AddressState.DEAD, AddressState.PARKED) or self.is_draining:
            return self._dead(message)
        if self._run is not None and self._run.stop_reason is not None:
            if self._run.stop_reason.cause is StopCause.RESTART:
                return self._restarting(message)
            return self._dead(message)
        return None

    # --- what the incarnation reports --------------------------------------------------------------------------------

    def start_done(self, run: Incarnation) -> None:
        """The start handshake is done."""
        if self._run is run:
            self.state = AddressState.UP
            self._up_since = self.read_clock()
            self._tell_monitors("back", Back(self.name, self.incarnation))

    def incarnation_failed(self, run: Incarnation | None, error: BaseException | None) -> None:
        """The incarnation will end: fail the requests that it handled or whose reply it deferred.

        Requests still queued are answered by `on_decided`, when it is known whether the actor restarts; or by
        `tasks_outlive_it`, if the end takes long.
        """
        if run is not None and self._run is not run and self._run is not None:
            return
        if self.state in (AddressState.PARKED, AddressState.DEAD):
            return
        self.state = AddressState.DOWN
        what = ""
        for ask in tuple(self.asks):
            if ask.stage in _SEEN:
                what = what or how_it_ended(run, error)
                failure = self._crashed(ask, what)
                failure.__cause__ = error
                ask.settle(Error(failure))
            elif ask.room_scope is not None:
                ask.room_scope.cancel(reason="there is nobody to make room")
        if self._will_restart is not None:
            self._answer_queued(will_restart=self._will_restart)

    def tasks_outlive_it(self) -> None:
        """Tasks keep the incarnation from ending: fail the queued requests now, instead of at their deadlines."""
        if self._will_restart is None:
            self._answer_waiting()

    def record_dead_letter(self, message: Message, reason: str) -> None:
        """Count a message that will not be handled, with the reason."""
        self.services.deadletters.record(self.name, type(message).__name__, reason, counted_as=self.metric_label)

    def _close(self, state: AddressState, reason: str) -> None:
        self.state = state
        self._end_reason = f"{self._end_reason}; {reason}" if self._end_reason else reason
        for ask in tuple(self.asks):
            ask.settle(Error(self._dead(ask.message)))
        left = [message for item in self.mailbox.close() if (message := told_message(item)) is not None]
        for message in left:
            self.record_dead_letter(message, f"the actor is {state.value}: {reason}")
        self._tell_monitors("gone", Gone(self.name, state.value))
        actor, self._actor = self._actor, None
        if actor is not None and left:
            try:
                actor.on_undelivered(left, reason)
            except BaseException as error:  # noqa: BLE001  # nothing is left that could crash, and the others must be told
                self.record_dead_letter(left[0], f"on_undelivered raised {error_text(error)}")

    def _tell_monitors(self, kind: MonitorKind, message: Message) -> None:
        for monitor in [monitor for monitor in self.monitors if monitor.kind == kind]:
            monitor.report(message)

    def _answer_queued(self, *, will_restart: bool) -> None:
        self._will_restart = will_restart
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        for ask in tuple(self.asks):
            if ask.stage not in _SEEN:
                ask.settle(Error(self._not_delivered(ask.message)))

    def _not_delivered(self, message: Message) -> AskError:
        return self._dead(message) if self._will_restart is False else self._restarting(message)

    # --- error texts -------------------------------------------------------------------------------------------------

    def _crashed(self, ask: PendingAsk, what: str) -> ActorCrashed:
        state = {AskStage.HANDLED: "handled", AskStage.POSTPONED: "had seen and postponed"}.get(
            ask.stage, "owed the reply to"
        )
        return ActorCrashed(
            self.name,
            ask.message,
            f"{self.name!r} (incarnation {self.incarnation}) {what} while it {state} {type(ask.message).__name__}; "
            "whether it took effect is unknown: repeat it only if it is idempotent",
        )

    def _restarting(self, message: Message) -> ActorRestarting:
        return ActorRestarting(
            self.name,
            message,
            f"{self.name!r} is restarting ({self._end_reason or f'incarnation {self.incarnation} is ending'}) and has not seen "
            f"{type(message).__name__}: it is safe to repeat",
        )

    def _dead(self, message: Message) -> ActorDead:
        state = "draining" if self.is_draining else _ENDING.get(self.state, self.state.value)
        return ActorDead(
            self.name,
            message,
            f"{self.name!r} is {state} ({self._end_reason or f'incarnation {self.incarnation}'}) and will not see "
            f"{type(message).__name__}; `atlas restart {self.name}` brings it back",
        )

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def handled(self) -> Collection[type[Message]]:
        """The message types that the running incarnation, or the last one, has handlers for; empty if there is none."""
        return () if self._actor is None else self._actor.handlers.keys()

    @property
    def is_dead(self) -> bool:
        """Whether it has stopped for good."""
        return self.state is AddressState.DEAD

    @property
    def metric_label(self) -> str:
        """What metrics call it: its name, unless it is one of many."""
        return self.name

    @property
    def is_up(self) -> bool:
        """Whether an incarnation runs (or is starting)."""
        return self.state in (AddressState.STARTING, AddressState.UP)

    @property
    def is_gone(self) -> bool:
        """Whether it is stopped for good or parked."""
        return self.state in (AddressState.PARKED, AddressState.DEAD)

    @property
    def up_for(self) -> float:
        """Seconds since the running incarnation's start handshake; 0 while none is up."""
        return self.read_clock() - self._up_since if self.state is AddressState.UP else 0.0

    @property
    def readiness(self) -> tuple[bool, str]:
        """Whether the actor can do its work, and why not."""
        troubles = self.troubles()
        return not any(trouble.blocks for trouble in troubles), "; ".join(trouble.why for trouble in troubles)

    def troubles(self) -> list[Trouble]:
        """What keeps it from its work or harms it, what keeps it first; that it does not run, if that is so."""
        if self.state is not AddressState.UP:
            return [Trouble("", self.state.value, self.state.value, blocks=True)]
        return self.noted.in_order()

    @property
    def is_awaited(self) -> bool:
        """Whether anything is to be expected of it: not so for one that declined to run or has finished.

        One that an operator stopped is awaited: its work is not done.
        """
        return not (self._ended_by_itself and self.state is AddressState.DEAD)

    @property
    def is_needed_by_all(self) -> bool:
        """Whether the system as a whole is not ready while this one is not."""
        return self.is_awaited

    def idle_since(self) -> float | None:
        """Since when, on trio's clock, it has had nothing to do; None while it has, and while it is not up.

        What it may have to do: a message that waits, was postponed or is being handled; a request that it owes a reply to; a
        task. A timer that is not due is nothing to do.
        """
        run = self._run
        if self.state is not AddressState.UP or run is None or self.is_busy or self.asks or run.has_tasks:
            return None
        mailbox = self.mailbox
        if not mailbox.is_empty or mailbox.control_waiting or mailbox.postponed:
            return None
        last = self._up_since if self.handling is None else max(self._up_since, self.handling[2])
        return last + self.clock_offset

    @property
    def stopping(self) -> bool:
        """Whether the incarnation was asked to stop."""
        return self._run is not None and self._run.stop_reason is not None

    def waits(self) -> Iterator[WaitEdge]:
        """What the message loop waits for, from which it will not turn away until it has it."""
        return iter(() if self._run is None else tuple(self._run.call.waits))

    def stack(self) -> list[str]:
        """Where the message loop stands, outermost first; empty if it does not run."""
        return [] if self._run is None else self._run.stack()

    def _inspect_actor(self, bounds: Bounds) -> dict[str, object]:
        actor = self._actor
        if actor is None or type(actor).inspect is Actor.inspect:
            return {}
        try:
            shown = actor.inspect()
        except BaseException as error:  # noqa: BLE001  # looking at an actor must not hurt the one who looks
            return {"error": f"inspect raised {error_text(error)}"}
        return plain_mapping(shown, bounds)

    def inspect(self) -> dict[str, object]:
        """Everything an operator may see, JSON-able. Works while the actor is stuck; never raises."""
        return {**self.look(), "actor": self._inspect_actor(LIVE)}

    def look(self) -> dict[str, object]:
        """The same without what the actor itself says of its state."""
        activity = self.last_activity()
        mailbox = self.mailbox.statistics()
        run = self._run
        now = self.read_clock() + self.clock_offset
        return {
            "name": self.name,
            "incarnation": self.incarnation,
            "state": self.state.value,
            "ready": self.readiness[0],
            "why_not_ready": self.readiness[1],
            "handling": activity.message if self.is_busy else None,
            "handling_for": None if activity.handling_since is None else now - activity.handling_since,
            "last_message": activity.message,
            "waiting_on": [waiting.callee.name for waiting in self.waits()],
            "depth": mailbox.current_buffer_used,
            "peak": mailbox.peak_buffer_used,
            "capacity": mailbox.max_buffer_size,
            "oldest_age": mailbox.oldest_age,
            "senders_waiting": mailbox.tasks_waiting_send,
            "postponed": mailbox.postponed,
            "dropped": mailbox.dropped,
            "expired": self.expired,
            "timers": 0 if run is None else len(run.timers),
            "suspended": not self.mailbox.serve_user,
            "facts": dict(self.facts),
        }

    def __repr__(self) -> str:
        return f"<Address {self.name} #{self.incarnation} {self.state.value}>"
