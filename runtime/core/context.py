"""`Context`: what an actor can ask of the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from runtime.core.ask import Deferred
from runtime.core.readiness import OneOf
from runtime.core.ref import Monitor
from runtime.core.timers import Timer
from runtime.events import Event
from runtime.message import Message, Request

if TYPE_CHECKING:
    from runtime.core.incarnation import ActorTask, Incarnation
    from runtime.core.readiness import Required
    from runtime.core.ref import Ref
    from runtime.core.services import Services

R = TypeVar("R")
PosArgs = TypeVarTuple("PosArgs")


class Context:
    """One incarnation's view: its name, its tasks and timers, and the way to others. Dies with the incarnation."""

    __slots__ = ("_run",)

    def __init__(self, run: Incarnation) -> None:
        self._run = run

    @property
    def name(self) -> str:
        """The actor's name; stable."""
        return self._run.address.name

    @property
    def ref(self) -> Ref:
        """A reference to this actor itself."""
        return self._run.address.ref

    @property
    def incarnation(self) -> int:
        """This incarnation's number."""
        return self._run.number

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop: long work should come to an end."""
        return self._run.stop_reason is not None

    @property
    def services(self) -> Services:
        """What all actors of the process share."""
        return self._run.address.services

    def lookup(self, name: str) -> Ref:
        """A stable reference by name. Raises UnknownActor with the nearest name."""
        return self.services.registry.lookup(name)

    def start_task(
        self,
        function: Callable[[*PosArgs], Awaitable[object]],
        *args: *PosArgs,
        name: str | None = None,
        inherit_deadline: bool = True,
    ) -> ActorTask:
        """Run `function(*args)` beside the message loop. It ends with the incarnation; its crash is the actor's crash.

        Its asks do not block the actor. They are capped by the deadline of the request being handled now, because the task
        most likely works for that request; a task that goes on after it says `inherit_deadline=False`. `name` is what
        operators see and defaults to the function's name. Returns a handle to cancel it or to wait for its end.
        """
        return self._run.start_task(function, args, name, inherit_deadline=inherit_deadline)

    def after(self, seconds: float, message: Message) -> Timer:
        """Get `message` in `seconds` from now, ahead of what waits in the user lane. Returns the timer, which can be cancelled.

        It dies with the incarnation. Raises ValueError unless `seconds` is finite and at least 0.
        """
        return self._run.timers.add(seconds, message)

    def monitor(self, ref: Ref) -> Monitor:
        """Get one Down, in the control lane, when the present incarnation behind `ref` is gone; at once if none runs."""
        return self._run.monitor(ref.address)

    def defer(self, message: Request[R]) -> Deferred[R]:
        """Answer the request that is being handled later: the handler returns the Deferred, and its holder answers once.

        Raises RuntimeError for any other message than the one being handled.
        """
        return self._run.defer(message)

    def unpostpone(self) -> None:
        """Handle all postponed messages again, in their order and before those that wait. Call it when the state changed."""
        self._run.address.mailbox.unpostpone()

    def emit(self, event: Event) -> None:
        """Keep an event, log it and tell the bus's subscribers. Never waits, never raises."""
        self.services.events.emit(event)

    def failpoint(self, point: str) -> None:
        """A named place at which tests and operators may make this actor crash.

        Raises Killed if it is armed; costs one read of a flag while failpoints are off.
        """
        failpoints = self._run.address.services.failpoints
        if failpoints.enabled:
            failpoints.visit(self.name, point)

    def describe(self, **facts: str) -> None:
        """Facts for `atlas status`, e.g. `listening="http://127.0.0.1:8600"`. Added to the earlier ones of this incarnation."""
        self._run.address.facts.update(facts)

    def ready(self, is_ready: bool, why: str = "") -> None:  # reads as a sentence: ready(False, "…")
        """Whether this actor can do its work; shown in status and /readyz. Until told otherwise: yes, once started."""
        self._run.address.set_ready(is_ready, why)

    def trouble(self, kind: str, why: str, *, about: str = "", blocks: bool = True) -> None:
        """Say what keeps this actor from its work, or takes it back with an empty `why`; beside other kinds, and beside `ready`.

        `kind` is one word, for the metric `atlas_not_ready`. `about` names the one of several that is in trouble, such as
        `nodes.oslo`, for an actor that works for all of them: the others are worked for as before. With `blocks=False` it is
        shown and takes no readiness away.
        """
        self._run.address.set_trouble(kind, why, about, blocks=blocks)

    def one_of(self, kind: str, name: str, required: Required) -> None:
        """Say that this actor stands for `name`, one of several of a `kind` of which the system needs `required` to be ready."""
        self._run.address.one_of = OneOf(kind, name, required)
