"""One round of deliveries: claimed messages in, one outcome for each that was decided."""

from __future__ import annotations

import enum
import functools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import trio

from actors.notices.events import (
    NOTICE_SECONDS,
    NOTICES,
    NoticeRetried,
    NoticeSent,
    NoticeUndeliverable,
    NoticeUntellable,
    OperatorChatMoved,
    TelegramTooFast,
)
from actors.notices.rate_limits import RateLimits
from actors.notices.rendering import LANGUAGES, UntellableNotice, is_stale, language_of, text_of
from actors.notices.settings import TelegramNoticeSettings
from actors.pool.client import Pool
from actors.telegram.api import ApiAnswer, Outcome, TelegramApi
from actors.telegram.methods import SendMessage
from db.errors import LeaseError
from db.tx import Tx
from db.work.outbox import (
    OutboxMessage,
    mark_sent,
    mark_undeliverable,
    postpone_message,
    retry_message,
    spread_messages,
)
from runtime import Budget, Context


class NoticeResult(enum.Enum):
    """What an attempt to deliver a message means for its row."""

    SENT = "sent"
    UNDELIVERABLE = "undeliverable"
    RETRY = "retried"
    POSTPONED = "postponed"


@attrs.frozen
class NoticeOutcome:
    """What became of a message at this attempt."""

    message: OutboxMessage
    end: NoticeResult
    why: str = ""
    delay: float = 0.0
    """Seconds until the next attempt, for RETRY and POSTPONED."""
    is_unreachable: bool = False
    blocks_chat: bool = False
    """Whether what waits for the same chat waits as well, to keep its order."""

    async def write(self, tx: Tx) -> bool:
        """Write it down; repeating that changes nothing. Returns False if another process has the message, or it is settled."""
        match self.end:
            case NoticeResult.SENT:
                return await mark_sent(tx, self.message)
            case NoticeResult.UNDELIVERABLE:
                return await mark_undeliverable(tx, self.message, self.why, is_unreachable=self.is_unreachable)
            case NoticeResult.RETRY:
                return await retry_message(tx, self.message, self.delay, self.why)
            case NoticeResult.POSTPONED:
                return await postpone_message(tx, self.message, self.delay, self.why)


RECORD_SECONDS: Final = 3.0
"""What is kept of the budget for writing down what became of a message, so that being cut off never leaves it unknown."""
LONGEST_WAIT: Final = 2.0
"""Seconds: a message that would have to wait longer for its chat is given back instead."""

_NO_OPERATOR_WAIT: Final = 600.0
_UNTELLABLE_WAIT: Final = 3600.0
_NO_ACCESS_WAIT: Final = 60.0


@attrs.define(eq=False)
class DeliveryRound:
    """A round. Chats are served side by side, one chat's messages in their order; no lease is held while one is sent.
    A chat gets what it may be sent in a moment, so that the round ends soon and the next one finds the others' messages; if
    the page `is_full`, what the chat has beyond that is put off for as long as it takes to send it.

    `trouble` says why the round was broken off, and `pause` for how many seconds nothing should be tried. `undecided` counts
    claimed messages about which nothing was decided: their claims lapse with the owner's next enlisting.
    """

    context: Context
    pool: Pool
    api: TelegramApi
    pace: RateLimits
    telegram: TelegramNoticeSettings
    budget: Budget
    slots: trio.CapacityLimiter
    operator_chat: int
    per_chat: int
    """Messages of one chat in a round, at most."""
    is_full: bool
    """Whether more may be due than these."""
    unsettled: list[NoticeOutcome]
    """Verdicts that the database did not take; the caller's, because they outlive the round."""
    sent: int = attrs.field(init=False, default=0)
    undecided: int = attrs.field(init=False, default=0)
    answered: bool = attrs.field(init=False, default=False)
    trouble: ApiAnswer | None = attrs.field(init=False, default=None)
    delays: list[float] = attrs.field(init=False, factory=list)
    """Seconds after which each of the messages that were given back is due."""
    _began: float = attrs.field(init=False, factory=trio.current_time)

    async def run(self, messages: Iterable[OutboxMessage]) -> None:
        """Deliver what can be delivered within the budget."""
        chats: defaultdict[int, list[OutboxMessage]] = defaultdict(list)
        for message in messages:
            chats[self.operator_chat if message.telegram_id is None else message.telegram_id].append(message)
        async with trio.open_nursery() as nursery:
            for chat, queue in chats.items():
                nursery.start_soon(self._serve, chat, queue)

    async def _serve(self, chat: int, queue: Sequence[OutboxMessage]) -> None:
        most = max(1, min(self.per_chat, 1 + int(LONGEST_WAIT * self.pace.rate_of(chat))))
        blocked_by: NoticeOutcome | None = None
        for position, message in enumerate(queue):
            if blocked_by is not None:
                verdict: NoticeOutcome | None = attrs.evolve(blocked_by, message=message, end=NoticeResult.POSTPONED)
            elif position == most and self.is_full:
                await self._spread(chat, queue[position:])
                return
            elif position == most:
                verdict = None
            else:
                verdict = await self._decide(chat, message)
            if verdict is None:
                self.undecided += len(queue) - position
                return
            await self._settle(verdict)
            if verdict.blocks_chat:
                blocked_by = verdict

    async def _spread(self, chat: int, surplus: Sequence[OutboxMessage]) -> None:
        """Let what a chat cannot have now come due at its pace, with all that waits for it unclaimed: it fills the pages."""
        apart = 1 / self.pace.rate_of(chat)
        for receiver in {message.customer_id for message in surplus}:
            theirs = [message for message in surplus if message.customer_id == receiver]
            spread = functools.partial(spread_messages, surplus=theirs, seconds_apart=apart)
            half = RECORD_SECONDS / 2
            try:
                count = await self.pool.run("notifications.spread", spread, within=half, hold=half)
            except LeaseError:
                self.undecided += len(theirs)
                continue
            NOTICES.labels(NoticeResult.POSTPONED.value).inc(len(theirs))
            self.delays += [place * apart for place in range(1, count + 1)]

    # ---- one message ----------------------------------------------------------------------------------------------------

    async def _decide(self, chat: int, message: OutboxMessage) -> NoticeOutcome | None:
        if self._is_over():
            return None
        if is_stale(message.kind, message.payload, message.claimed_at):
            return NoticeOutcome(message, NoticeResult.UNDELIVERABLE, "too late: what it reminds of is over")
        for_operator = message.telegram_id is None
        if for_operator and not chat:
            return NoticeOutcome(
                message, NoticeResult.POSTPONED, "telegram.operator_chat_id is not set", _NO_OPERATOR_WAIT
            )
        language = LANGUAGES[self.telegram.operator_language] if for_operator else language_of(message.language)
        try:
            text = text_of(message.kind, message.payload, language, message.claimed_at, for_operator=for_operator)
        except (UntellableNotice, ValueError, ArithmeticError, LookupError) as error:
            why = str(error) if isinstance(error, UntellableNotice) else f"{message.kind}: {type(error).__name__}"
            self.context.emit(NoticeUntellable(actor=self.context.name, message=message.id, why=why))
            return NoticeOutcome(message, NoticeResult.POSTPONED, why, _UNTELLABLE_WAIT)
        now = trio.current_time()
        wait = self.pace.next_allowed_at(chat, now) - now
        if wait <= LONGEST_WAIT:
            await trio.sleep(wait)
            async with self.slots:
                wait = await self._wait_for_rate(chat)
                if self._is_over():
                    return None
                if wait <= 0:
                    self.context.failpoint("sending")
                    answer = await self.api.call(SendMessage(chat, text, parse_mode=None))
        if wait > 0:
            return NoticeOutcome(message, NoticeResult.POSTPONED, delay=wait, blocks_chat=True)
        self.context.failpoint("sent")
        return self._outcome_of(chat, message, answer)

    async def _wait_for_rate(self, chat: int) -> float:
        """Wait until the rate limits allow a message. Returns 0 then, else for how many seconds Telegram has closed the chat."""
        await trio.sleep_until(self.pace.reserve(chat, trio.current_time()))
        now = trio.current_time()
        return self.pace.closed_until(chat, now) - now

    def _outcome_of(self, chat: int, message: OutboxMessage, answer: ApiAnswer) -> NoticeOutcome | None:
        self.answered = self.answered or answer.outcome not in (
            Outcome.NOT_SENT,
            Outcome.NO_ACCESS,
            Outcome.UNKNOWN,
        )
        match answer.outcome:
            case Outcome.DONE:
                return NoticeOutcome(message, NoticeResult.SENT)
            case Outcome.REFUSED | Outcome.BAD_MARKUP | Outcome.GONE | Outcome.NOT_MODIFIED | Outcome.STALE_QUERY:
                return NoticeOutcome(message, NoticeResult.UNDELIVERABLE, answer.why)
            case Outcome.MOVED if message.telegram_id is None:
                self.operator_chat = answer.moved_to
                self.context.emit(OperatorChatMoved(actor=self.context.name, chat=answer.moved_to))
                return NoticeOutcome(message, NoticeResult.POSTPONED, answer.why, blocks_chat=True)
            case Outcome.UNREACHABLE | Outcome.MOVED if message.telegram_id is None:
                # The operator's messages are never given up: the setting is wrong, or the bot was put out of the group.
                return NoticeOutcome(message, NoticeResult.RETRY, answer.why, self._backoff(message), blocks_chat=True)
            case Outcome.UNREACHABLE | Outcome.MOVED:
                return NoticeOutcome(message, NoticeResult.UNDELIVERABLE, answer.why, is_unreachable=True)
            case Outcome.UNKNOWN:
                return NoticeOutcome(message, NoticeResult.RETRY, answer.why, self._backoff(message), blocks_chat=True)
            case Outcome.TOO_FAST:
                everything = self.pace.on_too_many_requests(chat, trio.current_time(), answer.retry_after)
                self.context.emit(
                    TelegramTooFast(actor=self.context.name, seconds=answer.retry_after, everything=everything)
                )
                return NoticeOutcome(message, NoticeResult.POSTPONED, answer.why, answer.retry_after, blocks_chat=True)
            case Outcome.NOT_SENT | Outcome.NO_ACCESS:
                self.trouble = answer
                return None

    def _backoff(self, message: OutboxMessage) -> float:
        base: float = min(2.0 ** min(message.attempts, 30), self.telegram.longest_wait)
        return base * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing

    def _is_over(self) -> bool:
        """Whether no further message may be begun: it could not be brought to an end, or would fare no better."""
        return (
            self.trouble is not None
            or bool(self.unsettled)
            or self.budget.remaining < self.telegram.within + RECORD_SECONDS
            or self.pace.closed_for(trio.current_time()) > 0
        )

    # ---- writing it down ------------------------------------------------------------------------------------------------

    async def _settle(self, verdict: NoticeOutcome) -> None:
        try:
            await record_outcome(self.pool, verdict)
        except LeaseError:
            self.unsettled.append(verdict)
        else:
            self.context.failpoint("settled")
        self._report(verdict)
        await self.budget.count()

    def _report(self, verdict: NoticeOutcome) -> None:
        message, name = verdict.message, self.context.name
        NOTICES.labels(verdict.end.value).inc()
        if verdict.end in (NoticeResult.RETRY, NoticeResult.POSTPONED):
            self.delays.append(verdict.delay)
        if verdict.end is NoticeResult.SENT:
            self.sent += 1
            waited = (message.claimed_at - message.created_at).total_seconds()
            took = waited + trio.current_time() - self._began
            NOTICE_SECONDS.observe(took)
            self.context.emit(NoticeSent(actor=name, message=message.id, notice=message.kind, took=took))
        elif verdict.end is NoticeResult.UNDELIVERABLE:
            event = NoticeUndeliverable(actor=name, message=message.id, notice=message.kind, why=verdict.why)
            self.context.emit(event)
        elif verdict.end is NoticeResult.RETRY:
            self.context.emit(
                NoticeRetried(
                    actor=name, message=message.id, notice=message.kind, retry_in=verdict.delay, why=verdict.why
                )
            )

    @property
    def pause(self) -> float:
        """Seconds for which nothing should be tried, because Telegram does not know the token or has closed everything."""
        if self.trouble is not None and self.trouble.outcome is Outcome.NO_ACCESS:
            return _NO_ACCESS_WAIT
        return self.pace.closed_for(trio.current_time())


async def record_outcome(pool: Pool, verdict: NoticeOutcome) -> bool:
    """Write an outcome down within RECORD_SECONDS. Returns False if another process has the message. Raises LeaseError."""
    half = RECORD_SECONDS / 2
    return await pool.run("notifications.settle", verdict.write, within=half, hold=half)
