"""Telegram Payments and Stars: updates by webhook or by long polling, both read here.

Authentic is what carries our secret token, or what came by asking with the bot's token. Money is named by
`telegram_payment_charge_id`, because one invoice can be paid twice. A `pre_checkout_query` has to be answered within
ten seconds; only `successful_payment` is money.
"""

from __future__ import annotations

import math
import re

import attrs
import httpx
import trio

from actors.payments.provider import (
    NewInvoice,
    NotAuthentic,
    NotUnderstood,
    Provider,
    Statement,
    StillOpen,
    WebhookDelivery,
)
from actors.payments.settings import TelegramPaymentSettings
from actors.payments.telegram_api import TelegramApi
from actors.payments.wire import (
    Fields,
    came_in_minor_units,
    configured,
    int_field,
    matches_any,
    minor_units,
    object_field,
    optional_object,
    optional_text,
    order_of,
    order_tag,
    read_object,
    text_field,
)
from db.billing.invoices import CheckoutVerdict, Invoice
from db.billing.payment_facts import (
    Captured,
    Checkout,
    Contact,
    FinalizePurchase,
    InvoiceClosed,
    NothingToBook,
    ProviderFact,
    Reversed,
)
from db.billing.provider_events import StoredEvent
from db.billing.provider_refunds import ProviderRefund, RefundAnswer
from db.errors import BusinessError
from db.money import Money

_CHECKOUT_REFUSALS: dict[CheckoutVerdict | None, tuple[str, str]] = {
    CheckoutVerdict.UNKNOWN_ORDER: (
        "Этот счёт больше не действует. Выберите тариф ещё раз.",
        "This invoice is not valid any more. Please choose a plan again.",
    ),
    CheckoutVerdict.NOT_YOURS: (
        "Этот счёт выставлен другому человеку. Откройте бота и выберите тариф сами.",
        "This invoice belongs to somebody else. Please open the bot and choose a plan yourself.",
    ),
    CheckoutVerdict.PAID: ("Этот счёт уже оплачен.", "This invoice has been paid already."),
    CheckoutVerdict.ENDED: (
        "Срок оплаты истёк. Выберите тариф ещё раз.",
        "The time to pay is over. Please choose a plan again.",
    ),
    CheckoutVerdict.AMOUNT: (
        "Сумма не совпадает с заказом. Выберите тариф ещё раз.",
        "The amount is not that of your order. Please choose a plan again.",
    ),
    CheckoutVerdict.NOT_SOLD: (
        "Этот тариф больше не продаётся. Выберите другой.",
        "This plan is not sold any more. Please choose another one.",
    ),
    CheckoutVerdict.SOLD_OUT: (
        "Сейчас нет свободных мест. Попробуйте позже.",
        "There is no room for new customers right now. Please try again later.",
    ),
    None: (
        "Сейчас оплату принять не получается. Деньги не списаны, попробуйте через минуту.",
        "We cannot take a payment right now. You were not charged; please try again in a minute.",
    ),
}


def checkout_refusal(verdict: CheckoutVerdict | None, language: str) -> str:
    """The reason in the customer's language, empty if the customer may pay. `None`: it could not be judged."""
    if verdict is CheckoutVerdict.FINE:
        return ""
    russian, english = _CHECKOUT_REFUSALS[verdict]
    return english if language and not language.startswith("ru") else russian


NAME = "telegram"
_HEADER = "x-telegram-bot-api-secret-token"
UPDATES = ("message", "callback_query", "pre_checkout_query", "my_chat_member")
"""The kinds of update that we ask for."""
JUDGE_WITHIN = 5.0
"""Seconds from a checkout's arrival to its verdict; without one it is refused."""
ANSWER_WITHIN = 2.5
"""Seconds for the answer to a checkout; with what goes before, it stays below Telegram's ten."""
_INVITATION = "/start ref"
_NAME = re.compile(r"[!-~]{1,150}")
_BEYOND_ALL_NUMBERS = 2**63
_STATEMENT_PAGE = 100
_REFUNDED = "CHARGE_ALREADY_REFUNDED"


@attrs.frozen
class Telegram(Provider):
    """Payments inside Telegram: Stars, or a provider that is set up at @BotFather."""

    name = NAME
    is_watched = False
    refunds = "whole"

    settings: TelegramPaymentSettings
    api: TelegramApi

    @classmethod
    def open(cls, settings: TelegramPaymentSettings) -> Telegram | None:
        if not settings.token:
            return None
        return cls(settings, TelegramApi.of(settings.url, settings.token))

    def authenticate(self, delivery: WebhookDelivery) -> str:
        secrets = configured(self.settings.webhook_secret, self.settings.previous_webhook_secret)
        if not matches_any(delivery.headers.get(_HEADER, ""), secrets):
            raise NotAuthentic(NAME, "its secret token is not ours")
        return self.event_id(read_object(delivery.body))

    def event_id(self, update: Fields) -> str:
        """The bot, and what the update is about: the charge, the refund or the checkout, else the update's number.

        Numbers come again: Telegram picks a new one at random after a week of silence, and a Bot API server of one's own
        counts anew. Each bot counts for itself; the first part of its token says which one it is.
        """
        number = int_field(update, "update_id")
        if abs(number) >= _BEYOND_ALL_NUMBERS:
            raise NotUnderstood("the number of an update is beyond all that Telegram gives")
        return f"{self.settings.token.reveal().partition(':')[0]}:{_subject(update) or number}"

    async def understand(self, body: bytes) -> ProviderFact:
        update = read_object(body)
        query = optional_object(update, "pre_checkout_query")
        if query is not None:
            return _checkout(query)
        message = optional_object(update, "message") or {}
        payment = optional_object(message, "successful_payment")
        if payment is not None:
            return _captured(payment, _contact(message))
        refund = optional_object(message, "refunded_payment")
        if refund is not None:
            said = f"{int_field(refund, 'total_amount')} {text_field(refund, 'currency')} in the smallest unit"
            charge = text_field(refund, "telegram_payment_charge_id")
            came = came_in_minor_units(int_field(refund, "total_amount"), text_field(refund, "currency"))
            return Reversed(charge, "refund", charge, said, in_all=came.amount)
        return NothingToBook("no payment", _anybody(update))

    async def follow_up(self, body: bytes, event: StoredEvent) -> None:
        """Answer a checkout as it was judged first. A query that is too old is refused by Telegram, and let go."""
        verdict = event.outcome.get("verdict")
        if isinstance(verdict, str):
            query = object_field(read_object(body), "pre_checkout_query")
            language = optional_text(object_field(query, "from"), "language_code")
            await self._answer(text_field(query, "id"), checkout_refusal(CheckoutVerdict(verdict), language))

    def judge_within(self, body: bytes) -> float:
        return JUDGE_WITHIN if read_object(body).get("pre_checkout_query") is not None else math.inf

    async def refuse_unjudged(self, body: bytes) -> None:
        """Refuse a checkout that cannot be judged: no money is taken then, and the customer is told to try again."""
        query = optional_object(read_object(body), "pre_checkout_query")
        if query is not None:
            await self._answer(
                text_field(query, "id"),
                checkout_refusal(None, optional_text(object_field(query, "from"), "language_code")),
            )

    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        title = "Balance" if invoice.kind == "topup" else f"{invoice.tariff}, {invoice.days} d"
        link = await self.api.link(
            "createInvoiceLink",
            {
                "title": title,
                "description": title,
                "payload": order_tag(invoice.order_id),
                "provider_token": self.settings.provider_token.reveal(),
                "currency": invoice.amount.currency,
                "prices": [{"label": title, "amount": invoice.amount.amount}],
            },
        )
        # Telegram names no invoice: ours does, and only the order that it carries matters.
        return NewInvoice(f"link-{invoice.id}", link)

    @property
    def has_statement(self) -> bool:
        """Stars have one; what a provider behind Telegram captured is on that provider's."""
        return self.settings.asset == "XTR"

    async def read_statement(self, position: int) -> Statement:
        """A page of the bot's Star transactions: the payments of invoices, and what went back of them."""
        entries = await self.api.star_transactions(position, _STATEMENT_PAGE)
        facts: list[ProviderFact] = []
        unreadable: list[tuple[int, str]] = []
        for number, entry in enumerate(entries, position):
            try:
                fact = _entry(entry) if isinstance(entry, dict) else None
            except (NotUnderstood, BusinessError) as error:
                unreadable.append((number, str(error)))
            else:
                facts += [] if fact is None else [fact]
        is_last = len(entries) < _STATEMENT_PAGE
        return Statement(tuple(facts), position + len(entries), is_last, tuple(unreadable))

    async def refund(self, refund: ProviderRefund) -> RefundAnswer:
        """Stars alone can be given back; asked twice, Telegram says that they were."""
        if refund.amount.currency != "XTR":
            return RefundAnswer(
                "refused", "", "what a provider behind Telegram captured is given back at that provider"
            )
        if refund.telegram_id is None:
            return RefundAnswer("refused", "", "it is not known who paid, and Telegram wants to be told")
        body = {"user_id": refund.telegram_id, "telegram_payment_charge_id": refund.charge_id}
        why = await self.api.refusal_of("refundStarPayment", body)
        if not why or _REFUNDED in why:
            return RefundAnswer("done", refund.charge_id)
        return RefundAnswer("refused", "", why)

    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        """Telegram cannot be asked about an invoice; it keeps an update for a day until it is taken."""
        return StillOpen()

    async def aclose(self) -> None:
        await self.api.aclose()

    async def _answer(self, query_id: str, why_not: str) -> None:
        body: dict[str, object] = {"pre_checkout_query_id": query_id, "ok": not why_not}
        if why_not:
            body["error_message"] = why_not
        with trio.move_on_after(ANSWER_WITHIN * 2):
            status = await self.api.send("answerPreCheckoutQuery", body, within=ANSWER_WITHIN)
            if status not in (httpx.codes.OK, httpx.codes.BAD_REQUEST):
                raise self.api.refused("answerPreCheckoutQuery", status)


def _entry(entry: Fields) -> ProviderFact | None:
    """What a Star transaction means for money here: gifts, paid media, withdrawals and advertisements mean nothing."""
    for side in ("source", "receiver"):
        partner = optional_object(entry, side)
        if partner is None or optional_text(partner, "type") != "user" or "invoice_payload" not in partner:
            continue
        charge, stars = text_field(entry, "id"), came_in_minor_units(int_field(entry, "amount"), "XTR")
        if side == "receiver":
            said = f"{stars.amount.amount} XTR in the smallest unit"
            return Reversed(charge, "refund", charge, said, in_all=stars.amount)
        contact = _contact({"from": partner.get("user")})
        payer = None if contact is None else contact.telegram_id
        order = order_of(optional_text(partner, "invoice_payload"))
        return Captured(FinalizePurchase(NAME, charge, stars.amount, order, payer, actor=NAME), contact=contact)
    return None


def _subject(update: Fields) -> str | None:
    """What names an update that is about money; None if nothing does, or only what cannot be a name."""
    message = update.get("message")
    about: dict[str, object] = {"checkout": update.get("pre_checkout_query")}
    if isinstance(message, dict):
        about |= {"charge": message.get("successful_payment"), "refund": message.get("refunded_payment")}
    for kind, thing in about.items():
        name = (
            thing.get("id" if kind == "checkout" else "telegram_payment_charge_id") if isinstance(thing, dict) else None
        )
        if isinstance(name, str) and _NAME.fullmatch(name):
            return f"{kind}:{name}"
    return None


def _checkout(query: Fields) -> Checkout:
    payer = int_field(object_field(query, "from"), "id")
    try:
        amount: Money | None = minor_units(int_field(query, "total_amount"), text_field(query, "currency"))
    except NotUnderstood:
        amount = None
    contact = _contact(query) or Contact(payer, "ru")
    return Checkout(order_of(optional_text(query, "invoice_payload")), payer, amount, contact)


def _captured(payment: Fields, contact: Contact | None) -> Captured:
    came = came_in_minor_units(int_field(payment, "total_amount"), text_field(payment, "currency"))
    charge = FinalizePurchase(
        NAME,
        text_field(payment, "telegram_payment_charge_id"),
        came.amount,
        order_of(optional_text(payment, "invoice_payload")),
        None if contact is None else contact.telegram_id,
        actor=NAME,
        stated=came.stated,
    )
    return Captured(charge, contact=contact)


def _anybody(update: Fields) -> Contact | None:
    """Return who wrote to the bot in a private chat; None for a customer who blocks it or leaves."""
    message = optional_object(update, "message")
    if message is not None:
        return _contact(message) if optional_text(optional_object(message, "chat") or {}, "type") == "private" else None
    callback = optional_object(update, "callback_query")
    if callback is not None:
        return _contact(callback)
    member = optional_object(update, "my_chat_member")
    if member is not None and optional_text(optional_object(member, "new_chat_member") or {}, "status") == "member":
        return _contact(member) if optional_text(optional_object(member, "chat") or {}, "type") == "private" else None
    return None


def _contact(thing: Fields) -> Contact | None:
    sender = optional_object(thing, "from")
    if sender is None or sender.get("is_bot") is True:
        return None
    language = "ru" if optional_text(sender, "language_code")[:2] in ("", "ru", "be", "uk", "kk") else "en"
    return Contact(int_field(sender, "id"), language, _invited_by(optional_text(thing, "text")))


def _invited_by(message: str) -> int | None:
    """The friend whose invitation link (`?start=ref<Telegram id>`) brought him."""
    number = message.removeprefix(_INVITATION).lstrip("_")
    is_invitation = message.startswith(_INVITATION) and number.isascii() and number.isdigit() and len(number) < 16
    return int(number) if is_invitation else None
