"""Actors that misbehave on demand, for a limited time or for ever, so that the watchdog has something to find.

Each says in the log when it begins and, if it ever does, when it is done: that is what the tests wait for. `seconds` is
how long it misbehaves; 0 means for ever. Where it says so, only the first incarnation misbehaves: a restart is the cure.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Mapping

import attrs
import trio

from runtime.child import StopReason
from runtime.core.actor import Actor, handler
from runtime.core.iteration_budget import Budget
from runtime.core.worker import Iteration, PeriodicWorker, watch_mailbox
from runtime.log.logs import get_logger
from runtime.message import Message

log = get_logger("demo")

AGES = 3600.0


@attrs.frozen
class Begin(Message):
    """Misbehave now."""


@attrs.frozen
class Work(Message):
    number: int


@attrs.frozen
class Probe(Message):
    pass


def for_ever(seconds: float) -> float:
    return seconds or AGES


async def stand_still(seconds: float) -> None:
    """Where a task waits for something that does not come."""
    await trio.sleep(for_ever(seconds))


@attrs.define(eq=False)
class LoopBlocker(Actor):
    """Does not let the loop go on, once the watchdog has had a look or two. For "regex" it is given letters, not seconds."""

    how: str
    seconds: float = 0.0
    begin_after: float = 0.4

    async def after_start(self) -> None:
        self.context.after(self.begin_after, Begin())

    @handler
    async def begin(self, message: Begin) -> None:
        services = self.context.services
        if services.beats.healthcheck is None and services.registry.lookup("healthcheck") is not None:
            self.context.after(
                0.05, Begin()
            )  # a busy machine has not let the first probe end: there is no beat yet to go stale
            return
        log.info("blocks the loop")
        {"sleep": sleep_long, "lock": take_a_lock_twice, "regex": hold_the_interpreter}[self.how](self.seconds)
        log.info("lets the loop go on")


def sleep_long(seconds: float) -> None:
    time.sleep(for_ever(seconds))


def take_a_lock_twice(seconds: float) -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=seconds or -1)


def hold_the_interpreter(letters: float) -> None:
    """One call of the regular expression engine, which never lets go of the interpreter: for as long as so many letters take."""
    match_seconds(int(letters) or 64)


@functools.cache
def letters_for(seconds: float) -> int:
    """How many letters hold the interpreter for at least `seconds`, and for less than twice as long.

    Found before the process that it is for is started: while it is tried out, that one's loop would stand as well.
    """
    length = 16
    # Each letter doubles the time. Probes stay well below what is asked for, then one call does it. They are measured in
    # this thread's own processor time, the best of three: what a busy machine adds to a probe it may not add to the call.
    while (took := min(match_seconds(length) for _ in range(3))) <= seconds / 64:
        length += 1
    while took < seconds:
        took, length = took * 2, length + 1
    return length


def match_seconds(length: int) -> float:
    """Seconds of processor time that a match of so many letters takes."""
    began = time.thread_time()
    re.match(r"(a+)+$", "a" * length + "b")
    return time.thread_time() - began


@attrs.define(eq=False)
class Worker(PeriodicWorker):
    """Iterates, and in its first incarnation gets stuck in an await of a handler once it has iterated."""

    seconds: float = 0.0
    stuck: bool = False

    async def iterate(self, budget: Budget) -> Iteration:
        if self.stuck and self.context.incarnation == 1:
            self.context.ref.tell(Begin())
        return Iteration()

    @handler
    async def begin(self, message: Begin) -> None:
        log.info(f"{self.context.name} waits")
        await stand_still(self.seconds)
        log.info(f"{self.context.name} goes on")


@attrs.define(eq=False)
class StuckIteration(PeriodicWorker):
    """Its iteration proves progress once and then waits, beyond the patience that its beat asks for."""

    async def iterate(self, budget: Budget) -> Iteration:
        if self.context.incarnation == 1:
            self.context.services.beats.worker(self.context.name).begin(0.1)
            log.info(f"{self.context.name} waits")
            await stand_still(0)
        return Iteration()


@attrs.define(eq=False)
class Hopeless(Actor):
    """Each incarnation of it takes a piece of work that never ends."""

    async def on_start(self) -> None:
        self.context.services.beats.worker(self.context.name).begin(0.1)
        self.context.ref.tell(Begin())

    @handler
    async def begin(self, message: Begin) -> None:
        log.info(f"{self.context.name} waits")
        await stand_still(0)


@attrs.define(eq=False)
class Backlog(Actor):
    """Is never due, but messages wait in its mailbox while it takes `seconds` over one; only the first time."""

    seconds: float = 0.0
    done: list[int] = attrs.field(factory=list, init=False)

    async def on_start(self) -> None:
        beat = self.context.services.beats.worker(self.context.name)
        beat.idle_until(float("inf"))
        watch_mailbox(beat, self.context.ref.address)
        if self.context.incarnation == 1:
            for number in (1, 2, 3):
                self.context.ref.tell(Work(number))

    @handler
    async def work(self, message: Work) -> None:
        if message.number == 1 and self.context.incarnation == 1:
            log.info(f"{self.context.name} waits")
            await stand_still(self.seconds)
        self.done.append(message.number)
        log.info(f"{self.context.name} has done {message.number}")

    def inspect(self) -> Mapping[str, object]:
        return {"done": list(self.done)}


@attrs.define(eq=False)
class Swallower(PeriodicWorker):
    """Swallows its cancellation and goes on waiting, for `seconds`; as a worker it is stuck all the while."""

    seconds: float = 0.0

    async def iterate(self, budget: Budget) -> Iteration:
        if self.context.incarnation == 1:
            self.context.ref.tell(Begin())
        return Iteration()

    @handler
    async def begin(self, message: Begin) -> None:
        log.info(f"{self.context.name} waits")
        try:
            await stand_still(0)
        except trio.Cancelled:
            log.info(f"{self.context.name} swallows its cancellation")
            with trio.CancelScope(shield=True):
                await stand_still(self.seconds)
            raise


@attrs.define(eq=False)
class Healthcheck(Actor):
    """Completes a round of probes every `interval` seconds; freezes on round `freezes_at` of its first incarnations."""

    interval: float = 0.1
    freezes_at: int = 0
    """0: never."""
    seconds: float = 0.0
    incarnations: int = 1
    """How many incarnations freeze."""
    rounds: int = attrs.field(default=0, init=False)

    async def on_start(self) -> None:
        self.context.ref.tell(Probe())

    @handler
    async def probe(self, message: Probe) -> None:
        self.rounds += 1
        if self.rounds == self.freezes_at and self.context.incarnation <= self.incarnations:
            log.info(f"{self.context.name} waits")
            await stand_still(self.seconds)
            log.info(f"{self.context.name} goes on")
        self.context.services.beats.probed()
        self.context.after(self.interval, Probe())

    def inspect(self) -> Mapping[str, object]:
        return {"rounds": self.rounds}


@attrs.define(eq=False)
class RemoteUser(PeriodicWorker):
    """Needs an answer from somebody who never gives one, and says so in its readiness, never by dying."""

    port: int

    async def iterate(self, budget: Budget) -> Iteration:
        self.context.ready(False, "the remote side does not answer")
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        except OSError as error:
            return Iteration(note=f"refused: {type(error).__name__}")
        async with stream:
            await stream.receive_some()
        return Iteration()


@attrs.define(eq=False)
class RemoteHealthcheck(Healthcheck):
    """A round is bounded, and completes whatever it finds."""

    port: int = 0

    @handler
    async def probe(self, message: Probe) -> None:
        with trio.move_on_after(0.2):
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                    await stream.receive_some()
            except OSError:
                pass
        self.rounds += 1
        if self.rounds % 5 == 0:
            log.info(f"{self.rounds} rounds found the remote side down")
        self.context.services.beats.probed()
        self.context.after(self.interval, Probe())


@attrs.define(eq=False)
class BusyPool(Actor):
    """A pool whose leases are all taken: it reports a wait spike, and who holds and who waits."""

    since: float = attrs.field(init=False)

    async def on_start(self) -> None:
        self.since = trio.current_time()
        beats = self.context.services.beats
        beats.pool(self.context.name).idle_until(float("inf"))
        beats.pool_wait_spike(f'{self.context.name}: "debit" waited 5.30 s')

    async def on_stop(self, reason: StopReason) -> None:
        self.context.services.beats.forget(self.context.name)

    def inspect(self) -> Mapping[str, object]:
        now = trio.current_time()  # like the real pool: this clock can be read on the loop's thread only
        return {
            "leases": [{"label": "reconcile", "held_seconds": round(now - self.since, 1)}],
            "waiting": [{"label": "debit", "waited_seconds": round(now - self.since, 1)}],
        }
