"""The storefront: the actor that answers customers in Telegram."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from actors.announcements import KeyActive, PurchaseFinal
from actors.payments.registry import Providers, close_providers, open_providers
from actors.payments.settings import PaymentSettings
from actors.payments.shop_updates import Receipt, ShopUpdate
from actors.pool.client import Pool, pool_of
from actors.shop.settings import ShopSettings
from actors.storefront.answering import Answering
from actors.storefront.buttons import Press, base36
from actors.storefront.dispatch import Dispatch, Served
from actors.storefront.events import ANSWER_SECONDS, SCREEN_SECONDS
from actors.storefront.language import Texts, load_languages
from actors.storefront.queues import CustomerQueues, Job
from actors.storefront.screens import WITHIN, Surroundings
from actors.storefront.settings import StorefrontSettings
from actors.storefront.updates import COMMANDS, Asked, read_update
from actors.telegram.api import Outcome, TelegramApi
from actors.telegram.methods import BotCommand, GetMe, SetMyCommands
from db.errors import LeaseError
from db.settings import LimitSettings, TrialSettings
from db.work.front_ends import WaitingScreen, due_screens, settle_screen, stop_waiting, wait_on_screen
from runtime import Actor, Ignore, get_logger, handler

_log = get_logger("storefront")
_INTRODUCTION_PAUSE: Final = 30.0
_NODES: Final = "node."


@attrs.define(eq=False)
class Storefront(Actor):
    """Answers what customers press and write in their private chat with the bot.

    Role: screens from rows, and the operations that their buttons ask for; money moves by the same operations as everywhere.
    Owns: the bot's messages, its providers' HTTP clients. Receives: ShopUpdate from those who take the bot's updates;
    PurchaseFinal and KeyActive, which change a screen that waits. Sends: requests for leases to `pool`.
    On crash: what waits in the mailbox is served by the next incarnation, and what was in hand is handed over again; a press
    carries a nonce, so that it is carried out once. Screens that wait are rows, looked at every `look_every` seconds.
    Declines to run without a bot's token, or with `storefront.enabled = false`.
    Invariants: every press is answered within `storefront.answer_within`, outside of its customer's queue; one customer's
    updates in their order; nothing is charged at another price than its button said; what a customer wrote is never markup; no
    lease is held while Telegram or a provider is asked.
    """

    storefront: StorefrontSettings
    payments: PaymentSettings
    shop: ShopSettings = attrs.field(factory=ShopSettings)
    limits: LimitSettings = attrs.field(factory=LimitSettings)
    trials: TrialSettings = attrs.field(factory=TrialSettings)
    pool: str = "pool.gateway"
    look_every: float = attrs.field(default=20.0, validator=attrs.validators.gt(0))
    """Seconds between two looks for screens whose waiting is over, if nothing is announced."""
    _providers: Providers = attrs.field(init=False, factory=dict)
    _languages: Mapping[str, Texts] = attrs.field(init=False, factory=dict)
    _answering: Answering = attrs.field(init=False)
    _dispatch: Dispatch = attrs.field(init=False)
    _queues: CustomerQueues = attrs.field(init=False)
    _bot_name: str = attrs.field(init=False, default="")
    _look: trio.Event = attrs.field(init=False, factory=trio.Event)
    _watched: set[int] = attrs.field(init=False, factory=set)
    """Customers one of whose screens is on its way to be changed."""

    async def on_start(self) -> None:
        telegram = self.payments.telegram
        if not telegram.token:
            raise Ignore("payments.telegram.token is not set")
        if not self.storefront.enabled:
            raise Ignore("storefront.enabled is false")
        self._languages = load_languages(self.storefront.texts)
        self._providers = open_providers(self.payments)
        api = TelegramApi(telegram.url, telegram.token, within=self.storefront.within)
        self._answering = Answering(self.context, api)
        around = Surroundings(
            self._pool,
            self._providers,
            self.storefront,
            self.shop,
            self.limits,
            self.trials,
            self._languages,
            self.context.publish,
            self._servers,
            lambda: self._bot_name,
        )
        self._dispatch = Dispatch(self.context, around)
        slots = trio.CapacityLimiter(self.storefront.concurrency)
        self._queues = CustomerQueues(self._start_queue, self._serve, slots)
        self.context.describe(languages=", ".join(self._languages), providers=", ".join(self._providers))
        self.context.subscribe(PurchaseFinal)
        self.context.subscribe(KeyActive)
        self.context.start_task(self._close_at_end, api, name="clients", inherit_deadline=False)
        self.context.start_task(self._introduce, api, name="introduction", inherit_deadline=False)
        self.context.start_task(self._watch, name="screens that wait", inherit_deadline=False)

    def inspect(self) -> Mapping[str, object]:
        return {"customers": len(self._queues) if self._languages else 0, "bot": self._bot_name or None}

    # ---- updates --------------------------------------------------------------------------------------------------------

    @handler
    async def on_update(self, message: ShopUpdate) -> None:
        """Queue an update behind its sender's earlier ones, and see to it that a press is answered in time."""
        asked = read_update(message.update)
        if asked is None:
            message.receipt.end(is_done=True)
            return
        job = Job(asked, message.receipt, message.arrived_at)
        if self._queues.add(job) and asked.is_press:
            self.context.start_task(self._answer, job, name="answer", inherit_deadline=False)

    @handler
    async def on_purchase(self, message: PurchaseFinal) -> None:
        """Look for the screen that waits for this payment."""
        self._look.set()

    @handler
    async def on_key(self, message: KeyActive) -> None:
        """Look for the screen that waits for this key."""
        self._look.set()

    def _start_queue(self, function: Callable[[int], Awaitable[None]], telegram_id: int) -> None:
        self.context.start_task(function, telegram_id, name="customer", inherit_deadline=False)

    async def _answer(self, job: Job) -> None:
        with trio.move_on_at(job.arrived_at + self.storefront.answer_within):
            await job.answered.wait()
        await self._answering.answer(job.asked.query_id, job.toast)
        ANSWER_SECONDS.observe(trio.current_time() - job.arrived_at)

    async def _serve(self, job: Job) -> None:
        served = await self._dispatch.make(job)
        self.context.failpoint("made")
        job.toast = served.screen.toast
        job.answered.set()
        asked = job.asked
        shown = await self._answering.show(
            served.name,
            served.screen,
            asked.telegram_id,
            asked.message_id,
            superseded=lambda: self._queues.has_more(asked.telegram_id),
        )
        if job.waiting is None:
            SCREEN_SECONDS.observe(trio.current_time() - job.arrived_at)
        self.context.failpoint("shown")
        await self._note_waiting(job, served, shown)

    # ---- screens that wait ----------------------------------------------------------------------------------------------

    async def _note_waiting(self, job: Job, served: Served, shown: int | None) -> None:
        """Remember what a screen waits for, or that it waits no longer. While the database is away, notices tell instead."""
        asked, waits = job.asked, served.screen.waits
        try:
            if job.waiting is not None:
                self._watched.discard(asked.telegram_id)
                if served.visitor is not None:
                    then = None if waits is None else waits.waits_for
                    await self._pool().run("storefront.settled", settle_screen, job.waiting, then, within=WITHIN)
            elif waits is not None and shown is not None:
                await self._pool().run(
                    "storefront.waits",
                    wait_on_screen,
                    asked.telegram_id,
                    shown,
                    waits.order_id,
                    waits.waits_for,
                    within=WITHIN,
                )
                self._look.set()  # it may have happened meanwhile
            elif (
                served.visitor is not None
                and asked.message_id is not None
                and served.visitor.waiting == asked.message_id
                and not served.screen.picture
            ):
                await self._pool().run(
                    "storefront.left", stop_waiting, served.visitor.customer.id, asked.message_id, within=WITHIN
                )
        except LeaseError as error:
            _log.warning("a screen that waits could not be noted", actor=self.context.name, why=str(error))

    async def _watch(self) -> None:
        while True:
            with trio.move_on_after(self.look_every):
                await self._look.wait()
            self._look = trio.Event()
            try:
                due = await self._pool().run("storefront.due", due_screens, within=WITHIN)
            except LeaseError:
                continue  # a row stays; the next look finds it
            for waiting in due:
                self._change(waiting)

    def _change(self, waiting: WaitingScreen) -> None:
        if waiting.telegram_id in self._watched:
            return
        press = Press("or", (base36(waiting.order_id),))
        asked = Asked(waiting.telegram_id, "", press, message_id=waiting.screen)
        receipt = Receipt()
        self._watched.add(waiting.telegram_id)
        if not self._queues.add(Job(asked, receipt, trio.current_time(), waiting)):
            self._watched.discard(waiting.telegram_id)

    # ---- the rest -------------------------------------------------------------------------------------------------------

    def _pool(self) -> Pool:
        return pool_of(self.context, self.pool)

    def _servers(self) -> tuple[int, int]:
        nodes = [address for address in self.context.services.registry if address.name.startswith(_NODES)]
        return sum(address.readiness[0] for address in nodes), len(nodes)

    async def _introduce(self, api: TelegramApi) -> None:
        """Find out the bot's name, which invitations need, and say which commands there are."""
        while True:
            answer = await api.call(GetMe())
            self._answering.note(answer)
            if answer.outcome is Outcome.DONE:
                break
            await trio.sleep(_INTRODUCTION_PAUSE)
        name = answer.result.get("username") if isinstance(answer.result, dict) else None
        self._bot_name = name if isinstance(name, str) else ""
        self.context.describe(bot=f"@{self._bot_name}")
        for code, texts in self._languages.items():
            commands = tuple(BotCommand(command, texts.texts[f"command_{command}"]) for command in COMMANDS)
            await api.call(SetMyCommands(commands, code))

    async def _close_at_end(self, api: TelegramApi) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await api.aclose()
                await close_providers(self._providers)
