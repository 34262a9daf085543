"""One round of deliveries: claimed messages in, one verdict for each that was decided."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import trio

from actors.notices.bot_api import Answer, BotApi, Outcome
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
from actors.notices.pace import Pace
from actors.notices.settings import TelegramSettings
from actors.notices.texts import LANGUAGES, UntellableNotice, is_stale, language_of, text_of
from actors.notices.verdict import End, Verdict
from actors.pool_client import Pool
from db.lease_errors import LeaseError
from db.outbox import Message, spread_messages
from runtime.context import Context
from runtime.worker import Budget

SETTLE_SECONDS: Final = 3.0
"What is kept of the budget for writing down what became of a message, so that being cut off never leaves it unknown."
LONGEST_TURN: Final = 2.0
"Who would wait longer for a turn gives the message back instead."

_NO_OPERATOR_WAIT: Final = 600.0
_UNTELLABLE_WAIT: Final = 3600.0
_NO_ACCESS_WAIT: Final = 60.0


@attrs.define(eq=False)
class Delivery:
    """A round. Chats are served side by side, one chat's messages in their order; no lease is held while one is sent.
    A chat gets what it may be sent in a moment, so that the round ends soon and the next one finds the others' messages; if
    the page `is_full`, what the chat has beyond that is put off for as long as it takes to send it.

    `trouble` says why the round was broken off, and `hold` for how many seconds nothing should be tried. `left` counts
    claimed messages about which nothing was decided: their claims lapse with the owner's next enlisting.
    """

    context: Context
    pool: Pool
    api: BotApi
    pace: Pace
    telegram: TelegramSettings
    budget: Budget
    slots: trio.CapacityLimiter
    operator_chat: int
    in_a_row: int
    "Messages of one chat in a round, at most."
    is_full: bool
    "Whether more may be due than these."
    unsettled: list[Verdict]
    "Verdicts that the database did not take; the caller's, because they outlive the round."
    sent: int = attrs.field(init=False, default=0)
    left: int = attrs.field(init=False, default=0)
    answered: bool = attrs.field(init=False, default=False)
    trouble: Answer | None = attrs.field(init=False, default=None)
    delays: list[float] = attrs.field(init=False, factory=list)
    "Seconds after which each of the messages that were given back is due."
    _began: float = attrs.field(init=False, factory=trio.current_time)

    async def run(self, messages: Iterable[Message]) -> None:
        """Deliver what can be delivered within the budget."""
        chats: defaultdict[int, list[Message]] = defaultdict(list)
        for message in messages:
            chats[self.operator_chat if message.telegram_id is None else message.telegram_id].append(message)
        async with trio.open_nursery() as nursery:
            for chat, queue in chats.items():
                nursery.start_soon(self._serve, chat, queue)

    async def _serve(self, chat: int, queue: Sequence[Message]) -> None:
        most = max(1, min(self.in_a_row, 1 + int(LONGEST_TURN * self.pace.rate_of(chat))))
        held_up: Verdict | None = None
        for position, message in enumerate(queue):
            if held_up is not None:
                verdict: Verdict | None = attrs.evolve(held_up, message=message, end=End.POSTPONED)
            elif position == most and self.is_full:
                await self._spread(chat, queue[position:])
                return
            elif position == most:
                verdict = None
            else:
                verdict = await self._decide(chat, message)
            if verdict is None:
                self.left += len(queue) - position
                return
            await self._settle(verdict)
            if verdict.holds_up:
                held_up = verdict

    async def _spread(self, chat: int, surplus: Sequence[Message]) -> None:
        """Let what a chat cannot have now come due at its pace, with all that waits for it unclaimed: it fills the pages."""
        apart = 1 / self.pace.rate_of(chat)
        for receiver in {message.customer_id for message in surplus}:
            theirs = [message for message in surplus if message.customer_id == receiver]
            spread = functools.partial(spread_messages, surplus=theirs, seconds_apart=apart)
            half = SETTLE_SECONDS / 2
            try:
                count = await self.pool.run("notifications.spread", spread, within=half, hold=half)
            except LeaseError:
                self.left += len(theirs)
                continue
            NOTICES.labels(End.POSTPONED.value).inc(len(theirs))
            self.delays += [place * apart for place in range(1, count + 1)]

    # ---- one message ----------------------------------------------------------------------------------------------------

    async def _decide(self, chat: int, message: Message) -> Verdict | None:
        if self._is_over():
            return None
        if is_stale(message.kind, message.payload, message.claimed_at):
            return Verdict(message, End.UNDELIVERABLE, "too late: what it reminds of is over")
        for_operator = message.telegram_id is None
        if for_operator and not chat:
            return Verdict(message, End.POSTPONED, "telegram.operator_chat_id is not set", _NO_OPERATOR_WAIT)
        language = LANGUAGES[self.telegram.operator_language] if for_operator else language_of(message.language)
        try:
            text = text_of(message.kind, message.payload, language, message.claimed_at, for_operator=for_operator)
        except (UntellableNotice, ValueError, ArithmeticError, LookupError) as error:
            why = str(error) if isinstance(error, UntellableNotice) else f"{message.kind}: {type(error).__name__}"
            self.context.emit(NoticeUntellable(actor=self.context.name, message=message.id, why=why))
            return Verdict(message, End.POSTPONED, why, _UNTELLABLE_WAIT)
        now = trio.current_time()
        wait = self.pace.opens(chat, now) - now
        if wait <= LONGEST_TURN:
            await trio.sleep(wait)
            async with self.slots:
                wait = await self._turn(chat)
                if self._is_over():
                    return None
                if wait <= 0:
                    self.context.failpoint("sending")
                    answer = await self.api.send(chat, text)
        if wait > 0:
            return Verdict(message, End.POSTPONED, delay=wait, holds_up=True)
        self.context.failpoint("sent")
        return self._judge(chat, message, answer)

    async def _turn(self, chat: int) -> float:
        """Wait for the bot's turn. Returns 0 when it has come, else for how many seconds Telegram has closed the chat."""
        await trio.sleep_until(self.pace.reserve(chat, trio.current_time()))
        now = trio.current_time()
        return self.pace.closed_until(chat, now) - now

    def _judge(self, chat: int, message: Message, answer: Answer) -> Verdict | None:
        self.answered = self.answered or answer.outcome not in (Outcome.NOT_SENT, Outcome.NO_ACCESS, Outcome.UNKNOWN)
        match answer.outcome:
            case Outcome.SENT:
                return Verdict(message, End.SENT)
            case Outcome.REFUSED:
                return Verdict(message, End.UNDELIVERABLE, answer.why)
            case Outcome.MOVED if message.telegram_id is None:
                self.operator_chat = answer.moved_to
                self.context.emit(OperatorChatMoved(actor=self.context.name, chat=answer.moved_to))
                return Verdict(message, End.POSTPONED, answer.why, holds_up=True)
            case Outcome.UNREACHABLE | Outcome.MOVED if message.telegram_id is None:
                # The operator's messages are never given up: the setting is wrong, or the bot was put out of the group.
                return Verdict(message, End.RETRY, answer.why, self._backoff(message), holds_up=True)
            case Outcome.UNREACHABLE | Outcome.MOVED:
                return Verdict(message, End.UNDELIVERABLE, answer.why, is_unreachable=True)
            case Outcome.UNKNOWN:
                return Verdict(message, End.RETRY, answer.why, self._backoff(message), holds_up=True)
            case Outcome.TOO_FAST:
                everything = self.pace.refused(chat, trio.current_time(), answer.retry_after)
                self.context.emit(
                    TelegramTooFast(actor=self.context.name, seconds=answer.retry_after, everything=everything)
                )
                return Verdict(message, End.POSTPONED, answer.why, answer.retry_after, holds_up=True)
            case Outcome.NOT_SENT | Outcome.NO_ACCESS:
                self.trouble = answer
                return None

    def _backoff(self, message: Message) -> float:
        base: float = min(2.0 ** min(message.attempts, 30), self.telegram.longest_wait)
        return base * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing

    def _is_over(self) -> bool:
        """Whether no further message may be begun: it could not be brought to an end, or would fare no better."""
        return (
            self.trouble is not None
            or bool(self.unsettled)
            or self.budget.remaining < self.telegram.within + SETTLE_SECONDS
            or self.pace.closed_for(trio.current_time()) > 0
        )

    # ---- writing it down ------------------------------------------------------------------------------------------------

    async def _settle(self, verdict: Verdict) -> None:
        try:
            await settle(self.pool, verdict)
        except LeaseError:
            self.unsettled.append(verdict)
        else:
            self.context.failpoint("settled")
        self._tell(verdict)
        await self.budget.count()

    def _tell(self, verdict: Verdict) -> None:
        message, name = verdict.message, self.context.name
        NOTICES.labels(verdict.end.value).inc()
        if verdict.end in (End.RETRY, End.POSTPONED):
            self.delays.append(verdict.delay)
        if verdict.end is End.SENT:
            self.sent += 1
            waited = (message.claimed_at - message.created_at).total_seconds()
            took = waited + trio.current_time() - self._began
            NOTICE_SECONDS.observe(took)
            self.context.emit(NoticeSent(actor=name, message=message.id, notice=message.kind, took=took))
        elif verdict.end is End.UNDELIVERABLE:
            event = NoticeUndeliverable(actor=name, message=message.id, notice=message.kind, why=verdict.why)
            self.context.emit(event)
        elif verdict.end is End.RETRY:
            self.context.emit(
                NoticeRetried(
                    actor=name, message=message.id, notice=message.kind, retry_in=verdict.delay, why=verdict.why
                )
            )

    @property
    def hold(self) -> float:
        """Seconds for which nothing should be tried, because Telegram does not know the token or has closed everything."""
        if self.trouble is not None and self.trouble.outcome is Outcome.NO_ACCESS:
            return _NO_ACCESS_WAIT
        return self.pace.closed_for(trio.current_time())


async def settle(pool: Pool, verdict: Verdict) -> bool:
    """Write a verdict down within SETTLE_SECONDS. ``False``: somebody else has the message. Raises LeaseError."""
    half = SETTLE_SECONDS / 2
    return await pool.run("notifications.settle", verdict.write, within=half, hold=half)
