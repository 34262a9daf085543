"""`Context`: what an actor can ask of the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import attrs
import trio

from runtime.child import Restart
from runtime.core.ask import Deferred
from runtime.core.keyed import Keyed
from runtime.core.readiness import OneOf
from runtime.core.ref import Monitor, MonitorKind
from runtime.core.spawned import DEFAULT_MAX_CHILDREN, SpawnOptions, current_spawner
from runtime.core.threads import AsyncioThread, Portal
from runtime.core.timers import Timer
from runtime.errors import SpawnRefused, TooManyChildren
from runtime.events import Event
from runtime.message import Message, Request

if TYPE_CHECKING:
    from runtime.core.actor import Actor
    from runtime.core.incarnation import ActorTask, Incarnation
    from runtime.core.readiness import Required
    from runtime.core.ref import Ref
    from runtime.core.services import Services

K = TypeVar("K", bound=Hashable)
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

    async def spawn(
        self,
        actor: Actor,
        *,
        name: str | None = None,
        restart: Restart | str = Restart.TRANSIENT,
        outlives: bool = False,
        max_children: int = DEFAULT_MAX_CHILDREN,
        options: SpawnOptions | None = None,
    ) -> Ref:
        """Start an actor under this one's supervision; returns its ref once it serves.

        Its full name, which status and lookups use, is this actor's name, a dot, and `name` (by default its class in lower
        case and a number); it is free again when the child is gone. `restart` is "transient" (after a crash; a child that
        ends in order is gone), "permanent" or "temporary". Each incarnation gets a fresh copy of the start arguments of
        `actor`, which itself is never run. `options` has the rest: what follows too many crashes (the child is parked; with
        `give_up = "escalate"` this actor crashes), backoff, limits in time, mailbox.

        A child ends with the incarnation that spawned it: stopped in order, before `on_stop`, in half of the time there is,
        when that stops; killed when it crashes. One that `outlives` it goes on until it is stopped, or the system is.

        A child's `on_start` must not ask this actor, which waits for it. Raises SpawnRefused: NameTaken, TooManyChildren when
        this actor has `max_children` already, or because it stops, or because the child declined to run; ChildStartFailed
        when the child's start fails; ValueError for a name that is none. Nothing is left of a child then, nor when the call
        is cancelled.
        """
        run, parent = self._run, self.name
        spawned = self.services.spawned
        if spawned.count(parent) >= max_children:
            raise TooManyChildren(f"{parent!r} has {spawned.count(parent)} children, as many as max_children allows")
        chosen = options if options is not None else SpawnOptions(restart=restart)
        if options is not None and Restart(restart) is not Restart.TRANSIENT:
            chosen = attrs.evolve(options, restart=restart)
        spawner = None if run.task is None else run.task.context.get(current_spawner)
        if spawner is None:
            raise SpawnRefused(f"{parent!r} runs in no supervision tree: no supervisor is there for what it spawns")
        supervisor = await spawner.for_outliving(self.services) if outlives else run.children()
        short = name if name is not None else spawned.next_name(type(actor).__name__.lower())
        return await supervisor.start(
            spawner.new_address(self.services, parent, short, actor, chosen, outlives=outlives)
        )

    async def stop(self, ref: Ref, *, within: float | None = None) -> None:
        """Stop a child in order, for good, and wait until it is gone and its name free; at once if it is.

        Its `shutdown` bounds that, or `within` seconds if that is less; then it is interrupted. Raises ValueError for an actor
        that this one has not spawned, ChildrenUnstopped for one that does not end.
        """
        child = self.services.spawned.get(ref.name)
        if child is None or child.ref != ref:
            if ref.address.is_dead:
                return
            raise ValueError(f"{ref.name!r} is no child of {self.name!r}: it can stop only what it has spawned")
        if child.parent != self.name:
            raise ValueError(f"{ref.name!r} is a child of {child.parent!r}, and not of {self.name!r}")
        await child.supervisor.begin_stop(child.name, within)()

    def keyed(
        self,
        make: Callable[[K], Actor],
        *,
        idle: float = 300.0,
        max_children: int = DEFAULT_MAX_CHILDREN,
        naming: Callable[[K], str] = str,
        options: SpawnOptions | None = None,
    ) -> Keyed[K]:
        """One child a key: `make(key)` is started at the first message for its key and stopped after `idle` seconds.

        Idle is one that has had no message, no task and no request to answer for so long. What is sent for its key while it
        stops is handled by the next one: nothing that was accepted is lost by idling. `naming` gives a key's short name, which
        is the same for no two keys of this actor; `options` is as in `spawn`. Raises ValueError unless `idle` is positive.
        """
        return Keyed(self._run, make, idle, max_children, naming, options or SpawnOptions())

    def children(self) -> Mapping[str, Ref]:
        """The children of this actor by their short names, in the order in which they were spawned."""
        start = len(self.name) + 1
        return {child.name[start:]: child.ref for child in self.services.spawned.children_of(self.name)}

    def after(self, seconds: float, message: Message, *, key: Hashable = None) -> Timer:
        """Get `message` in `seconds` from now, ahead of what waits in the user lane. Returns the timer, which can be cancelled.

        With a `key` it takes the place of the timer with that key, so that there is one at most. It dies with the incarnation.
        Raises ValueError unless `seconds` is finite and at least 0.
        """
        return self._run.timers.add(seconds, message, key=key)

    def every(self, seconds: float, message: Message, *, first: float | None = None, key: Hashable = None) -> Timer:
        """Get `message` every `seconds`, as with `after`; the first time after `first` seconds, by default after `seconds`.

        In step with the beginning: how long handling takes moves nothing, and of times that were missed one comes, not all.
        Raises ValueError unless `seconds` is finite and more than 0.
        """
        if not seconds > 0:
            raise ValueError(f"a period must be a positive number of seconds, not {seconds!r}")
        return self._run.timers.add(seconds if first is None else first, message, period=seconds, key=key)

    def cancel_timer(self, key: Hashable) -> bool:
        """Cancel the timer with this key; False if none waits."""
        return self._run.timers.cancel(key)

    def subscribe(self, kind: type[Message]) -> None:
        """Be told each `kind`, and each of its subclasses, that any actor publishes from now on, as ordinary messages.

        Ends with the incarnation; the next one subscribes in its `on_start`, and has not heard what was published between. Raises
        TypeError if this actor has no handler for `kind`.
        """
        self._run.subscribe(kind)

    def unsubscribe(self, kind: type[Message]) -> None:
        """Be told no longer. Those that wait in the mailbox still come."""
        self.services.topics.unsubscribe(kind, self._run.address)

    def publish(self, message: Message) -> int:
        """Tell `message` to every actor that has subscribed to its type; returns how many took it. Never waits, never raises.

        An announcement is a hint: one whose mailbox is full, or who is between two incarnations, does not hear it. What must
        happen is a row in the database.
        """
        return self.services.topics.publish(message)

    def portal(self) -> Portal:
        """A way for plain threads to tell and ask actors; good until the loop ends."""
        return Portal(self.services, trio.lowlevel.current_trio_token())

    def asyncio_thread(self) -> AsyncioThread:
        """An asyncio loop in a thread of its own, for a library that needs one; it ends with the incarnation."""
        return AsyncioThread(self._run)

    def monitor(self, ref: Ref, *, when: MonitorKind = "down") -> Monitor:
        """Get one message, in the control lane: Down when the present incarnation behind `ref` is gone; with `when="back"` Back
        when the actor serves; with `when="gone"` Gone when it is stopped for good or parked.

        At once if that is so already; after many such answers within a second, a second later. To follow an actor over its
        restarts, ask for "back" on each Down, and for "down" on each Back.
        """
        return self._run.monitor(ref.address, when)

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
        self._run.address.noted.set_ready(is_ready, why)

    def trouble(self, kind: str, why: str, *, about: str = "", blocks: bool = True) -> None:
        """Say what keeps this actor from its work, or takes it back with an empty `why`; beside other kinds, and beside `ready`.

        `kind` is one word, for the metric `atlas_not_ready`. `about` names the one of several that is in trouble, such as
        `nodes.oslo`, for an actor that works for all of them: the others are worked for as before. With `blocks=False` it is
        shown and takes no readiness away.
        """
        self._run.address.noted.set(kind, why, about, blocks=blocks)

    def one_of(self, kind: str, name: str, required: Required) -> None:
        """Say that this actor stands for `name`, one of several of a `kind` of which the system needs `required` to be ready."""
        self._run.address.one_of = OneOf(kind, name, required)
