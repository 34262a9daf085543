"""The health check: looks at everything the service depends on, and proves that it looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from actors.conditions import Condition, ConditionTracker
from actors.nodes.messages import ReadState, node_names
from actors.pool.client import pool_of
from db.lease.queue import Lane
from db.tx import Tx
from runtime import Actor, AtlasError, Message, handler

_READ_ONLY = (
    "it takes no writes, so nothing is sold, renewed or ended: a standby, or default_transaction_read_only is on; make it "
    "writable, or let database.dsn name the primary"
)
_Ask = Callable[[str], Awaitable[str]]


@attrs.frozen
class StartRound(Message):
    """To itself: probe every dependency now."""


@attrs.frozen
class RoundEnded(Message):
    """To itself: what a round of probes found."""

    conditions: tuple[Condition, ...]


@attrs.define(eq=False)
class Healthcheck(Actor):
    """Asks the database, on its reserved lease, and every node, every few seconds, all at once.

    Role: one of the three heartbeats: a round completed, whatever it found. Owns: what is known of each condition.
    Receives: its own timer. Sends: ReadState to every `node.<key>`.
    On crash: the next incarnation starts with an unknown state and looks at once.
    Invariants: a round is bounded by `patience`; rounds never overlap; an outage found is a condition, never a crash; each
    condition alerts when it begins, at most once a `cooldown` while it lasts, and when it ends.
    """

    pools: tuple[str, ...] = ("pool.main",)
    interval: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds between the end of a round and the next one."""
    patience: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    """Seconds that a round may take."""
    cooldown: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    """Seconds between two alerts about the same lasting condition."""
    _conditions: ConditionTracker = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._conditions = ConditionTracker(self.cooldown)

    async def on_start(self) -> None:
        self.context.ref.tell(StartRound())

    @handler
    async def probe(self, message: StartRound) -> None:
        self.context.start_task(self._round, name="probe")

    @handler
    async def probed(self, message: RoundEnded) -> None:
        self.context.services.beats.probed()
        for alert in self._conditions.update(message.conditions, trio.current_time()):
            self.context.emit(alert.event(self.context.name))
        self.context.after(self.interval, StartRound())

    def inspect(self) -> dict[str, object]:
        return {"conditions": self._conditions.inspect(trio.current_time())}

    async def _round(self) -> None:
        found: list[Condition] = []
        async with trio.open_nursery() as nursery:
            for pool in self.pools:
                nursery.start_soon(self._look, pool, self._ask_database, found)
            for name in node_names(self.context.services.registry):
                nursery.start_soon(self._look, f"node.{name}", self._ask_node, found)
        self.context.failpoint("probed")
        self.context.ref.tell(RoundEnded(tuple(sorted(found, key=lambda condition: condition.subject))))

    async def _look(self, subject: str, ask: _Ask, found: list[Condition]) -> None:
        trouble = f"no answer within {self.patience:g} s"
        with trio.move_on_after(self.patience):
            try:
                trouble = await ask(subject)
            except AtlasError as error:
                trouble = str(error)
        found.append(Condition(subject, trouble))

    async def _ask_database(self, pool: str) -> str:
        takes_writes = await pool_of(self.context, pool).run(
            "healthcheck", _takes_writes, within=self.patience, hold=self.patience, lane=Lane.SYSTEM
        )
        return "" if takes_writes else _READ_ONLY

    async def _ask_node(self, name: str) -> str:
        state = await self.context.lookup(name).ask(ReadState(), within=self.patience)
        return "" if state.ready else f"its Xray is not ready: {state.why}"


async def _takes_writes(tx: Tx) -> bool:
    found: bool = await tx.fetchval("SELECT current_setting('transaction_read_only') = 'off'")
    return found
