"""The state of a pool without a database: stand-ins for connections and replies, for rules that need no server and no time."""

from __future__ import annotations

from typing import Any, cast

import attrs
import trio

from actors.pool.messages import LeaseRequest
from actors.pool.settings import PoolSettings
from actors.pool.state import PoolState
from db.driver.connection import Connection
from db.lease.lease import LeaseHolder
from db.lease.queue import Lane
from runtime import Event


@attrs.define(eq=False)
class StandInDriver:
    """A connection as the state see it."""

    alive: bool = True
    answers: bool = True
    """Whether it is still there when it is probed."""
    needs_cleaning: bool = False
    label: str = ""
    commit_deadline: float = float("-inf")

    def probe(self) -> bool:
        return self.alive and self.answers

    def is_idle(self) -> bool:
        return self.alive

    def is_closed(self) -> bool:
        return not self.alive

    def terminate(self) -> None:
        self.alive = False


@attrs.define(eq=False)
class StandInReply:
    """A deferred reply whose asker still waits."""

    told: object = None
    at: float = 0.0

    def reply(self, value: object) -> bool:
        return self._settle(value)

    def fail(self, error: Exception) -> bool:
        return self._settle(error)

    def _settle(self, value: object) -> bool:
        assert self.told is None, "told twice"
        self.told, self.at = value, trio.current_time()
        return True


def connection(driver: StandInDriver | None = None) -> Connection:
    """One that lives until its driver is told otherwise."""
    now = trio.current_time()
    return Connection(cast("Any", driver or StandInDriver()), 1, now, now + 1e6)


def new_state(size: int, settings: PoolSettings | None = None) -> tuple[PoolState, list[Event]]:
    """A pool's state without a connection yet, and the events that it emits."""
    events: list[Event] = []
    made = PoolState(
        "pool.main",
        settings or PoolSettings(reserved=0),
        size,
        emit=events.append,
        spike=lambda _: None,
        needed=lambda: None,
        dirty=lambda _: None,
        watch=lambda _: None,
        token=0,
    )
    return made, events


def request(label: str = "request", lane: Lane = Lane.INTERACTIVE, within: float = 10.0) -> LeaseRequest:
    """A request that came by message."""
    now = trio.current_time()
    reply: Any = StandInReply()
    return LeaseRequest(
        label, lane, 5.0, LeaseHolder("asker", 1), cast("Any", None), now, now + within, None, 0, deferred=reply
    )


def told(asked: LeaseRequest) -> object:
    """What its asker was told; None while it waits."""
    return cast("StandInReply", asked.deferred).told


def waits(state: PoolState, *requests: LeaseRequest) -> None:
    """Ask for these as the pool does for a message: take at once, else wait."""
    for asked in requests:
        assert state.take(asked) is None
        state.wait(asked)
