"""Notifications: what the outbox holds goes to customers and the operator by Telegram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import trio

from actors.notices.delivery import RECORD_SECONDS, DeliveryRound, NoticeOutcome, record_outcome
from actors.notices.events import TelegramAway, TelegramBack
from actors.notices.rate_limits import RateLimits
from actors.notices.settings import TelegramNoticeSettings
from actors.pool.client import Pool, pool_of
from actors.pool.database_worker import ClaimingWorker, close_at_end, outage_delay
from actors.telegram.api import TelegramApi
from db.errors import LeaseError
from db.lease.queue import Lane
from db.work.claims import Claimer
from db.work.outbox import OutboxMessage, claim_messages
from runtime import Budget, Iteration, StopReason, WakeUp, get_logger

log = get_logger("notices")

_SILENT = "wait in the outbox until you set telegram.token_file"
_LAST_WORD = 2.0
_SHARE = 4
"""One chat may have this part of a page in a round."""


@attrs.define(eq=False)
class Notifications(ClaimingWorker):
    """Sends the messages of the outbox, each at least once, and writes down what became of it.

    Role: (1) claim due messages in one short transaction; (2) send them over HTTP with no lease held, as fast as Telegram
    allows; (3) write down each result in a transaction of its own, fenced by the claim's epoch.
    Owns: the pace at which Telegram is called. Receives: WakeUp, which NOTIFY brings for new messages. Sends: nothing.
    On crash: its claims are free for the next incarnation at once. A message that was on its way is sent once more; any other
    exactly once. Messages whose sending is known and only not written down, because the database is away, are remembered
    and not sent again.
    Invariants: no lease is held while Telegram is called; one chat's trouble delays no other chat; a message is given up only
    when Telegram refuses it for good, or when what it reminds of is over; nothing is begun that the budget may cut off.
    """

    log_name = "notices"
    waiting = "notices wait"
    starts_at_once = True

    telegram: TelegramNoticeSettings
    claim_seconds: float = attrs.field(default=90.0, validator=attrs.validators.gt(0), kw_only=True)
    """How long a claim lasts if this process dies; a successor under the same name does not wait for it."""
    concurrency: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    """Messages on their way at the same time: as many may be repeated when the process dies."""
    _api: TelegramApi | None = attrs.field(init=False, default=None)
    _pace: RateLimits = attrs.field(init=False)
    _slots: trio.CapacityLimiter = attrs.field(init=False)
    _operator_chat: int = attrs.field(init=False)
    _unsettled: list[NoticeOutcome] = attrs.field(init=False, factory=list)
    _due: list[float] = attrs.field(init=False, factory=list)
    _paused_until: float = attrs.field(init=False, default=0.0)
    _away_since: float | None = attrs.field(init=False, default=None)
    _why_away: str = attrs.field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        self._pace = RateLimits(self.telegram.rate, self.telegram.chat_rate, self.telegram.group_rate)
        self._slots = trio.CapacityLimiter(self.concurrency)
        self._operator_chat = self.telegram.operator_chat_id

    async def on_start(self) -> None:
        await super().on_start()
        if not self.telegram.token:
            self.context.describe(notices=_SILENT)
            log.warning(_SILENT, actor=self.context.name)
            return
        self._api = TelegramApi(self.telegram.url, self.telegram.token, within=self.telegram.within)
        self.context.start_task(close_at_end, self._api.aclose, name="client", inherit_deadline=False)

    def check_configuration(self, name: str, shutdown: float) -> Iterable[str]:
        """Refuse limits that cut off a message on its way, at the end of the budget, of a stop or of a claim."""
        least = self.telegram.within + RECORD_SECONDS
        if not least < self.budget < self.claim_seconds:
            yield (
                f"budget = {self.budget:g} must be more than telegram.within + {RECORD_SECONDS:g} = {least:g}, so that "
                f"no message is cut off, and less than claim_seconds = {self.claim_seconds:g}, so that none is sent by two"
            )
        if self.telegram.within >= shutdown:
            yield (
                f"telegram.within = {self.telegram.within:g} must be less than the actor's shutdown = {shutdown:g}, so that a "
                "stop waits for what is on its way instead of sending it twice"
            )

    async def on_stop(self, reason: StopReason) -> None:
        await super().on_stop(reason)
        if self._unsettled:
            with trio.move_on_after(_LAST_WORD):
                await self._settle_leftovers(pool_of(self.context, self.pool, lane=Lane.BATCH))

    def inspect(self) -> Mapping[str, object]:
        now = trio.current_time()
        return {
            **super().inspect(),
            "has_token": bool(self.telegram.token),
            "why_away": self._why_away or None,
            "held_for": max(0.0, self._paused_until - now),
            "unsettled": len(self._unsettled),
        }

    async def iterate(self, budget: Budget) -> Iteration:
        if not self.telegram.token:
            return Iteration(note="no token")
        held = self._paused_until - trio.current_time()
        if held > 0:
            return Iteration(note=f"nothing is tried for another {held:.0f} s")
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        if not await self._settle_leftovers(pool):
            return self.without_database()
        looked = trio.current_time()
        try:
            claimer = await self.take_claimer(pool)
            messages: Sequence[OutboxMessage] = await pool.run(
                "notifications.claim", claim_messages, claimer, self.page_size, self.claim_seconds
            )
        except LeaseError as error:
            return self.without_database(error)
        self.context.failpoint("claimed")
        if not messages:
            self.keep_claimer(claimer, all_claims_settled=True)
            self._wake_when_due(looked, ())
            return Iteration()
        assert self._api is not None, "on_start makes it"
        is_full = len(messages) == self.page_size
        delivery = DeliveryRound(
            self.context,
            pool,
            self._api,
            self._pace,
            self.telegram,
            budget,
            self._slots,
            self._operator_chat,
            max(1, self.page_size // _SHARE),
            is_full,
            self._unsettled,
        )
        await delivery.run(messages)
        self._operator_chat = delivery.operator_chat
        return self._finish(delivery, claimer, looked, is_full=is_full)

    # ---- the rest -------------------------------------------------------------------------------------------------------

    async def _settle_leftovers(self, pool: Pool) -> bool:
        """Write down what the database did not take before; whether it has taken all of it now."""
        while self._unsettled:
            try:
                await record_outcome(pool, self._unsettled[0])
            except LeaseError:
                return False
            del self._unsettled[0]
        return True

    def _finish(self, delivery: DeliveryRound, claimer: Claimer, looked: float, *, is_full: bool) -> Iteration:
        self._update_reachability(delivery)
        self.keep_claimer(claimer, all_claims_settled=not delivery.undecided and not delivery.unsettled)
        self._wake_when_due(looked, delivery.delays)
        pause = delivery.pause
        if delivery.trouble is not None and not pause:
            pause = outage_delay(0.0 if self._away_since is None else trio.current_time() - self._away_since)
        if pause > 0:
            self._paused_until = trio.current_time() + pause
            self.context.after(pause, WakeUp())
            return Iteration(delivery.sent, note=delivery.trouble.why if delivery.trouble else "Telegram says to wait")
        if delivery.unsettled:
            return self.without_database()
        return Iteration(delivery.sent, more=is_full or delivery.undecided > 0)

    def _update_reachability(self, delivery: DeliveryRound) -> None:
        trouble, now = delivery.trouble, trio.current_time()
        if trouble is not None:
            if trouble.why != self._why_away:
                self.context.emit(TelegramAway(actor=self.context.name, why=trouble.why))
            self._away_since = now if self._away_since is None else self._away_since
            self._why_away = trouble.why
            self.context.ready(False, f"{trouble.why}; notices wait in the outbox")
        elif delivery.answered and self._away_since is not None:
            self.context.emit(TelegramBack(actor=self.context.name, away=now - self._away_since))
            self._away_since, self._why_away = None, ""
            self.context.ready(True)

    def _wake_when_due(self, looked: float, delays: Iterable[float]) -> None:
        """Look again when the next message is due that was given back; the others follow from one look to the next.

        `looked` is when this iteration claimed: what became due since then has not been looked at.
        """
        now = trio.current_time()
        due = {round(now + delay + 0.05, 1) for delay in delays if delay < self.interval}
        self._due = sorted(due.union(moment for moment in self._due if moment > looked))
        if self._due:
            self.context.after(max(0.0, self._due[0] - now), WakeUp())
