"""What periodic workers on a database have in common: it may be away, and rows that they claim are theirs for a while."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, NoReturn

import attrs
import trio

from actors.pool.client import Pool
from db.work.claims import Claimer, enlist_claimer
from runtime import Iteration, PeriodicWorker, WakeUp, get_logger

SOONEST_RETRY = 1.0
"""Seconds, at least, until something that was away is tried again."""
LATEST_RETRY = 60.0
"""Seconds, at most, between two tries, however long the outage."""


@attrs.define(eq=False)
class DatabaseWorker(PeriodicWorker):
    """A periodic worker whose work is rows.

    Role: what such workers do when the database is away: say so, and look again soon, because an outage is no crash.
    Owns nothing. Receives, sends, on crash: see PeriodicWorker.
    """

    log_name: ClassVar[str] = "worker"
    """The logger that tells of an outage."""
    waiting: ClassVar[str] = "the rows wait"
    """What the outage means, for operators; may be empty."""
    cause_field: ClassVar[str] = "error"
    """The field of the log line that holds the cause."""
    retry_seconds: ClassVar[float] = SOONEST_RETRY
    """Seconds until the next look when the database was away."""
    starts_at_once: ClassVar[bool] = False
    """Whether the first iteration follows the start: what an earlier incarnation left behind is due now, not after the start
    jitter."""

    pool: str = attrs.field(default="pool.main", kw_only=True)
    """The pool actor that leases the connections."""

    async def after_start(self) -> None:
        await super().after_start()
        if self.starts_at_once:
            self.context.ref.tell(WakeUp())

    def without_database(self, error: Exception | None = None, *, done: int = 0) -> Iteration:
        """Return what an iteration reports that ends because the database is away; the next one follows soon.

        `done` is how many items it had handled by then.
        """
        text = f"the database cannot be worked on{'; ' if self.waiting else ''}{self.waiting}"
        get_logger(self.log_name).warning(text, actor=self.context.name, **{self.cause_field: str(error or "")})
        self.context.after(self.retry_seconds, WakeUp())
        return Iteration(done=done, note="no database")


@attrs.define(eq=False)
class ClaimingWorker(DatabaseWorker):
    """A worker that claims rows before it works on them, so that no other process does.

    Role: under which name rows are claimed. Owns: that name's epoch, for as long as every claim was settled. Receives, sends:
    see PeriodicWorker.
    On crash: its claims are free for the next incarnation at once.
    Invariants: a claim lasts longer than an iteration, else the configuration is refused.
    """

    claim_seconds: float = attrs.field(default=60.0, kw_only=True)
    """How long a claim lasts if this process dies; a successor under the same name does not wait for it."""
    _claimer: Claimer | None = attrs.field(init=False, default=None)

    def check_configuration(self, name: str, shutdown: float) -> Iterable[str]:
        """Refuse a claim that does not last for a whole iteration: a row would be worked on by two at once."""
        if self.budget >= self.claim_seconds:
            yield (
                f"budget = {self.budget:g} must be less than claim_seconds = {self.claim_seconds:g}, or rows that it still works "
                f"on would be free for another process. Lower budget in [actor.{name}] args (MAX_ITERATION_SECONDS in the "
                "environment sets it too), or raise claim_seconds there"
            )

    async def take_claimer(self, pool: Pool) -> Claimer:
        """Return under whom this iteration claims: the claimer of the last one, or a new incarnation of it.

        An iteration hands it on with `keep_claimer` if it has settled every claim. One that was cut short does not, and all
        that it left claimed is free for the next one at once. Raises LeaseError.
        """
        claimer, self._claimer = self._claimer, None
        if claimer is None:
            name = f"{self.context.services.instance or self.context.services.system_name}/{self.context.name}"
            claimer = await pool.run(f"{self.context.name}.enlist", enlist_claimer, name)
        return claimer

    def keep_claimer(self, claimer: Claimer, *, all_claims_settled: bool) -> None:
        """Let the next iteration claim under the same claimer, if nothing is left claimed."""
        self._claimer = claimer if all_claims_settled else None


def outage_delay(lasted: float, jitter: Callable[[], float] = random.random) -> float:
    """Return the seconds until something is tried again that has been away for `lasted` seconds: half of that, 1 to 60, ±20 %.

    The delay grows with the outage without any counter, so that an outage costs no attempts. `jitter` gives 0 to 1.
    """
    base = min(max(lasted / 2, SOONEST_RETRY), LATEST_RETRY)
    return base * (0.8 + 0.4 * jitter())


async def close_at_end(close: Callable[[], Awaitable[None]]) -> NoReturn:
    """Wait for ever, and call `close` when that is cancelled: the task of an actor that keeps a client for its life."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await close()
