"""What more the desk does for a customer: prolong access, give money back at the provider, credit the money of a case."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal

import attrs

from actors.desk.customers import LARGEST, MOST_DAYS, Customers, customer_of, form_key, key_of, least_of, whole
from actors.payments.registry import ADAPTERS, close_providers, open_providers
from actors.payments.settings import PaymentSettings
from db.access.subscriptions import SubscriptionView, get_subscription
from db.billing.cases import credit_case, find_case
from db.billing.grants import grant_access
from db.billing.provider_refunds import reserve_refund
from db.errors import BusinessError
from db.money import Money
from runtime.desk import Action, Addition, Field, Question, View


@attrs.frozen
class Corrections:
    """The actions; their buttons are on the pages of customers and cases."""

    customers: Customers
    payments: PaymentSettings

    def addition(self) -> Addition:
        """The actions."""
        return Addition(
            actions=(
                Action("prolong", "Prolong", least_of("grant"), self._ask_prolong, self._prolong, keeps_reason=True),
                Action(
                    "refund-at-provider",
                    "Give back at the provider",
                    least_of("refund"),
                    self._ask_refund,
                    self._refund,
                    is_dangerous=True,
                    keeps_reason=True,
                ),
                Action(
                    "credit-case",
                    "Credit a customer",
                    least_of("cases credit"),
                    self._ask_credit,
                    self._credit,
                    keeps_reason=True,
                ),
            ),
            words=_WORDS,
        )

    async def _subscription(self, customer: int) -> SubscriptionView:
        found = await self.customers.read("desk.subscription", lambda tx: get_subscription(tx, customer))
        if found is None or not found.is_running:
            raise BusinessError(
                f"customer {customer} has no access that runs; give access instead. Nothing was changed"
            )
        return found

    async def _ask_prolong(self, view: View, given: Mapping[str, str]) -> Question:
        found = await self._subscription(customer_of(given))
        text = view.t("The same tariff follows what there is, without payment.")
        until = f"{found.tariff}, {view.t('until')} {found.expires_at:%Y-%m-%d %H:%M} UTC."
        return Question(f"{text} {until}", (Field("days", "Days", "number"), form_key()))

    async def _prolong(self, view: View, given: Mapping[str, str], why: str) -> str:
        customer, days = customer_of(given), whole(given, "days", MOST_DAYS)
        tariff = (await self._subscription(customer)).tariff
        done = await self.customers.act(
            view,
            "prolong",
            why,
            lambda tx: grant_access(
                tx, customer, tariff, timedelta(days=days), idempotency_key=key_of(given), actor=view.who.actor
            ),
            customer,
        )
        return f"{customer}: {done.tariff} {view.t('until')} {done.new_end:%Y-%m-%d %H:%M} UTC"

    async def _how(self, provider: str) -> Literal["whole", "parts"]:
        """How a provider gives money back. Raises BusinessError if it is off, or has no way."""
        opened = open_providers(self.payments)
        await close_providers(opened)
        if provider not in opened:
            on = ", ".join(sorted(opened)) or "none"
            raise BusinessError(f"no payment provider {provider[:40]!r} is on; on are {on}; nothing was asked")
        how = next(adapter.refunds for adapter in ADAPTERS if adapter.name == provider)
        if not how:
            raise BusinessError(
                f"{provider} has no way to give money back from here: pay it back there by hand, and record the refund; "
                "nothing was asked"
            )
        return how

    async def _ask_refund(self, view: View, given: Mapping[str, str]) -> Question:
        provider = given.get("provider", "")
        how = await self._how(provider)
        text = (
            "The provider is asked to give the money back; it is booked when the provider says that it went. A charge that goes "
            "back whole takes along what it bought."
        )
        field = Field("amount", "Amount in roubles, or all", value="all")
        fields = (form_key(),) if how == "whole" else (field, form_key())
        return Question(f"{view.t(text)} {provider} {given.get('charge', '')}", fields)

    async def _refund(self, view: View, given: Mapping[str, str], why: str) -> str:
        provider, charge = given.get("provider", ""), given.get("charge", "")
        amount = given.get("amount", "").strip()
        part = None if amount in ("", "all") else Money.parse(amount)
        only_whole = await self._how(provider) == "whole"
        done = await self.customers.act(
            view,
            f"refund at {provider} {charge}"[:100],
            why,
            lambda tx: reserve_refund(
                tx,
                provider,
                charge,
                amount=part,
                only_whole=only_whole,
                actor=view.who.actor,
                idempotency_key=f"at_provider:{key_of(given)}",
            ),
        )
        # The payment watcher asks: no connection is held, and no page waits, while a provider is asked.
        return f"{view.t('refund')} {done.id}: {done.amount}, {view.t('the payment watcher asks the provider')}"

    async def _ask_credit(self, view: View, given: Mapping[str, str]) -> Question:
        number = whole(given, "number", LARGEST)
        case = await self.customers.read("desk.case", lambda tx: find_case(tx, number))
        text = "The money that the case holds goes to the customer's balance, and the case is closed."
        about = f"{case.kind}: {case.stated or case.captured or ''} {case.details.get('why') or case.subject}"
        fields = [Field("customer", "Telegram id", "number", str(case.telegram_id or ""))]
        if not case.suspended:
            fields.append(Field("amount", "Amount in roubles"))
        return Question(f"{view.t(text)} {about}", fields)

    async def _credit(self, view: View, given: Mapping[str, str], why: str) -> str:
        number, customer = whole(given, "number", LARGEST), customer_of(given)
        amount = given.get("amount", "").strip()
        part = Money.parse(amount) if amount else None
        await self.customers.act(
            view,
            f"credit case {number}",
            why,
            lambda tx: credit_case(tx, number, customer, amount=part, actor=view.who.actor),
            customer,
        )
        return f"{view.t('case')} {number}: {view.t('credited to')} {customer}"


_WORDS: Final = {
    "Prolong": "Продлить",
    "Give back at the provider": "Вернуть через провайдера",
    "Credit a customer": "Зачислить клиенту",
    "Telegram id": "Telegram id",
    "Amount in roubles": "Сумма в рублях",
    "The same tariff follows what there is, without payment.": "Тот же тариф продолжится без оплаты.",
    "The provider is asked to give the money back; it is booked when the provider says that it went. A charge that goes "
    "back whole takes along what it bought.": (
        "Провайдера просят вернуть деньги; возврат записывается, когда он скажет, что они ушли. Целиком — забирает купленное."
    ),
    "the payment watcher asks the provider": "провайдера спросит payment_watcher",
    "The money that the case holds goes to the customer's balance, and the case is closed.": (
        "Деньги случая поступят на баланс клиента, случай закроется."
    ),
    "credited to": "зачислено клиенту",
}
