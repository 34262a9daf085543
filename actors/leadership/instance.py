"""The instance actor: one process at a time works on a database, and a second one refuses, waits, or shares."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal, NoReturn

import attrs
import trio

from actors.leadership.process_identity import ProcessIdentity
from actors.pool.client import pool_of
from db.errors import LeaseError
from db.lease.queue import Lane
from db.tx import Tx
from db.work.leader_leases import Epoch, acquire_epoch, find_epoch, release_epoch, renew_epoch
from runtime import (
    Actor,
    ActorTask,
    Event,
    Fatal,
    Ignore,
    PeriodicWorker,
    Resume,
    StartRefused,
    StopReason,
    Suspend,
)
from runtime.config import Config
from runtime.metrics import gauge
from runtime.wording import duration

INSTANCE_HELD = gauge("atlas_instance_held", "1 while this process may work on its database, else 0.")


@attrs.frozen
class InstanceHeld(Event):
    """This process works on its database from now on, or again."""

    level: ClassVar[int] = logging.INFO
    epoch: int
    waited: float
    """Seconds since it asked first, or since it was last sure."""

    def line(self) -> str:
        return f"this process works on its database, epoch {self.epoch}, after {duration(self.waited)}"


@attrs.frozen
class InstanceWaits(Event):
    """Another process works on the database, and this one waits for it to end."""

    level: ClassVar[int] = logging.WARNING
    holder: str

    def line(self) -> str:
        return f"this process waits: {self.holder}"


@attrs.frozen
class InstanceDoubted(Event):
    """The database did not confirm in time that this process may work: its workers are suspended."""

    level: ClassVar[int] = logging.ERROR
    why: str

    def line(self) -> str:
        return f"the workers are suspended until the database confirms that this process may work: {self.why}"


@attrs.frozen
class InstanceLost(Event):
    """Another process took over while this one was not heard of."""

    level: ClassVar[int] = logging.CRITICAL
    holder: str

    def line(self) -> str:
        return f"this process has lost its database to another one and stops: {self.holder}"


INSTANCE_EPOCH = "supervisor"
"""The row of `epochs` that the process holds."""
_POLL = 0.2
_HOLD = 1.0


@attrs.define(eq=False)
class Instance(Actor):
    """Holds the epoch row "supervisor" on database time, and lets the workers that need this actor work only while it does.

    Role: what keeps two supervisors off one database. `exclusive`: a second process refuses to start (exit code 69) and
    names the first. `standby`: it starts, its workers suspended, and takes over when the first one ends. `shared`: no row,
    this actor declines to run; claimed work is safe with several processes, work for one process at a time has leader leases.
    Owns: the row. Receives: nothing. Sends: Suspend and Resume to the periodic workers that declare that they need it.
    On crash: the workers are suspended at once; the next incarnation knows its own process's row and lets them go on.
    Invariants: workers run only while the row was confirmed less than `trust` seconds ago, which is less than `ttl`, so they
    are suspended before a successor may begin; what they had begun is fenced by its own claims. Losing the row to another
    process is Fatal (69). A database that is away only suspends them, however long it is away.
    """

    mode: Literal["exclusive", "standby", "shared"] = attrs.field(
        default="exclusive", validator=attrs.validators.in_(("exclusive", "standby", "shared"))
    )
    pool: str = "pool.main"
    ttl: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    """Seconds, on the database's clock, after which the row of a process that is not heard of is free."""
    trust: float = attrs.field(default=1.5, validator=attrs.validators.gt(0))
    """Seconds, on this process's clock, for which it relies on the last confirmation."""
    renew_every: float = attrs.field(default=0.5, validator=attrs.validators.gt(0))
    """Seconds between two confirmations."""
    patience: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds that a start waits for the database; then it goes on, with suspended workers, and asks again and again."""

    _identity: str = attrs.field(init=False, factory=lambda: str(ProcessIdentity.own()))
    _held: Epoch | None = attrs.field(init=False, default=None)
    _trusted_until: float = attrs.field(init=False, default=-1.0)
    _is_confirmed: bool = attrs.field(init=False, default=False)
    _unsure_since: float = attrs.field(init=False, default=0.0)
    _last_seen: tuple[int, object] | None = attrs.field(init=False, default=None)
    _waits_for: str = attrs.field(init=False, default="")
    _is_starting: bool = attrs.field(init=False, default=True)
    _renewal: ActorTask | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if not self.renew_every < self.trust < self.ttl:
            raise ValueError(
                f"renew_every < trust < ttl is needed, not {self.renew_every:g}, {self.trust:g}, {self.ttl:g} s"
            )

    async def on_start(self) -> None:
        if self.mode == "shared":
            raise Ignore("instance mode is shared: any number of processes may work on this database")
        self._unsure_since = trio.current_time()
        self._suspend("not confirmed yet")
        if self.mode == "exclusive":
            with trio.move_on_after(self.patience):
                while not await self._step():  # noqa: ASYNC110  what is awaited happens in another process
                    await trio.sleep(_POLL)
        self._is_starting = False
        self._renewal = self.context.start_task(self._renew_for_ever, name="keep the row", inherit_deadline=False)

    async def on_stop(self, reason: StopReason) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await self._renewal.wait()
        self._suspend("this actor was stopped")
        held, self._held = self._held, None
        if held is not None:
            try:
                await pool_of(self.context, self.pool).run(
                    "instance.release", release_epoch, held, within=_HOLD, hold=_HOLD, lane=Lane.SYSTEM
                )
            except LeaseError:
                return  # its time runs out by itself

    def inspect(self) -> Mapping[str, object]:
        """The mode, whether the workers may work, and until when that is certain."""
        return {
            "mode": self.mode,
            "held": self._is_confirmed,
            "epoch": None if self._held is None else self._held.epoch,
            "certain_for": max(0.0, self._trusted_until - trio.current_time()),
            "waits_for": self._waits_for,
        }

    async def _renew_for_ever(self) -> None:
        try:
            while True:
                is_confirmed = await self._step()
                await trio.sleep(self.renew_every if is_confirmed else _POLL)
        finally:
            # However this incarnation ends: the row is not renewed from now on.
            self._suspend("the actor that holds the row ended")

    async def _step(self) -> bool:
        """Ask the database once, and act on the answer; whether the row is ours now."""
        asked_at = trio.current_time()
        held = self._held
        # A renewal that takes longer than the trust lasts must not keep the workers running.
        limit = self._trusted_until if self._is_confirmed else asked_at + 2 * _HOLD
        try:
            with trio.move_on_at(limit):
                found = await self._ask(held)
                self.context.failpoint("asked")
                self._act(found, held, asked_at)
                return found.is_mine
            why = f"no answer within {duration(trio.current_time() - asked_at)}"
        except LeaseError as error:
            why = str(error)
        if trio.current_time() >= self._trusted_until:
            self._suspend(why)
        return False

    async def _ask(self, held: Epoch | None) -> Epoch:
        run = partial(pool_of(self.context, self.pool).run, within=_HOLD, hold=_HOLD, lane=Lane.SYSTEM)
        if held is not None:
            return await run("instance.renew", _renew, held, self.ttl)
        return await run("instance.acquire", _acquire, self._identity, self.ttl, self._may_follow)

    def _act(self, found: Epoch, held: Epoch | None, asked_at: float) -> None:
        if found.is_mine:
            self._held = found
            self._trusted_until = asked_at + self.trust
            if not self._is_confirmed:
                self._resume(found)
        elif held is not None:
            self._lost(describe_holder(found))
        else:
            self._wait_or_refuse(found)

    def _may_follow(self, found: Epoch) -> bool:
        holder = ProcessIdentity.parse(found.holder)
        return found.holder == self._identity or (holder is not None and holder.has_ended())

    def _wait_or_refuse(self, found: Epoch) -> None:
        """Act on another process holding the row. Whether it lives is known if it is on this machine, or once it renews."""
        holder = ProcessIdentity.parse(found.holder)
        sign = (found.epoch, found.renewed_at)
        renewed = self._last_seen is not None and self._last_seen != sign
        self._last_seen = sign
        text = describe_holder(found)
        if self.mode == "exclusive" and (renewed or (holder is not None and holder.lives_here())):
            self._refuse(text)
        if self._waits_for != found.holder:
            self._waits_for = found.holder
            self.context.emit(InstanceWaits(actor=self.context.name, holder=text))
        self.context.ready(False, f"waits: {text}")
        self.context.describe(instance=f"{self.mode}, waits for pid {found.pid} on {found.host}")

    def _refuse(self, text: str) -> NoReturn:
        message = (
            f'{text}. Stop that one first, or set mode = "standby" in [actor.{self.context.name}] args to wait for its end, '
            'or mode = "shared" to let both work'
        )
        if self._is_starting and self.context.incarnation == 1:
            raise StartRefused(message, os.EX_UNAVAILABLE)
        raise Fatal(message, os.EX_UNAVAILABLE)

    def _lost(self, text: str) -> NoReturn:
        self._held = None
        self._suspend(text)
        self.context.emit(InstanceLost(actor=self.context.name, holder=text))
        raise Fatal(
            f"{text}; it took over from this one. This process was frozen or cut off from the database; "
            "what it had begun and not committed is done by the other one",
            os.EX_UNAVAILABLE,
        )

    # -- the workers ---------------------------------------------------------------------------------------------------

    def _suspend(self, why: str) -> None:
        if self._is_confirmed:
            self._unsure_since = trio.current_time()
            if not self.context.stopping:
                self.context.emit(InstanceDoubted(actor=self.context.name, why=why))
        self._is_confirmed = False
        self._trusted_until = -1.0
        INSTANCE_HELD.set(0)
        self.context.ready(False, why)
        for name in self._dependents():
            self.context.lookup(name).tell(Suspend())

    def _resume(self, found: Epoch) -> None:
        self._is_confirmed = True
        self._waits_for = ""
        INSTANCE_HELD.set(1)
        self.context.ready(True)
        self.context.describe(instance=f"{self.mode}, epoch {found.epoch}")
        waited = trio.current_time() - self._unsure_since
        self.context.emit(InstanceHeld(actor=self.context.name, epoch=found.epoch, waited=waited))
        for name in self._dependents():
            ref = self.context.lookup(name)
            if not ref.address.is_paused:  # by an operator, whose word holds
                ref.tell(Resume())

    def _dependents(self) -> Iterator[str]:
        config = self.context.services.config
        if isinstance(config, Config):
            for plan in config.children:
                if self.context.name in plan.needs and issubclass(plan.actor, PeriodicWorker):
                    yield plan.name


def describe_holder(found: Epoch) -> str:
    """Who holds the row, since when, and when it was last heard of."""
    age = duration(max(0.0, (found.read_at - found.acquired_at).total_seconds()))
    heard = duration(max(0.0, (found.read_at - found.renewed_at).total_seconds()))
    return (
        f"another `atlas run` works on this database: pid {found.pid} on host {found.host}, since "
        f"{found.acquired_at:%Y-%m-%d %H:%M:%S} UTC ({age}), last heard of {heard} ago"
    )


async def _acquire(tx: Tx, holder: str, ttl_seconds: float, may_follow: Callable[[Epoch], bool]) -> Epoch:
    return await acquire_epoch(tx, INSTANCE_EPOCH, holder, ttl_seconds, may_follow)


async def _renew(tx: Tx, held: Epoch, ttl_seconds: float) -> Epoch:
    """Return the row with this process as its holder, or, if it was lost, with its present one."""
    if await renew_epoch(tx, held, ttl_seconds):
        return held
    found = await find_epoch(tx, held.name)
    assert found is not None, "what was held is never deleted"
    return found
