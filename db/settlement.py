"""The three ends of a captured payment: what was ordered, a credit to the balance, or a case for a human."""

from datetime import timedelta

import attrs

from db.cases import open_case
from db.chronicle import Notice
from db.entitlements import Grant, grant
from db.errors import BusinessError
from db.key_rows import want_present
from db.ledger import Journal, JournalKind, SystemAccount, move, post
from db.money import Money
from db.orders import Order
from db.payment import FinalizePurchase, Problem, PurchaseOutcome, Result
from db.promos import use_promo
from db.tx import Tx


@attrs.frozen
class Payer:
    """The customer whose payment it is."""

    id: int
    telegram_id: int
    referrer_id: int | None


@attrs.frozen
class Settlement:
    """A recorded charge on its way to one of its ends.

    The caller holds the customers' rows, calls one method once, and writes down the ``notices``.
    """

    tx: Tx
    command: FinalizePurchase
    money_in_id: int
    booked: Money
    problem: Problem
    order: Order | None
    customer: Payer | None
    notices: list[Notice] = attrs.field(factory=list)

    async def fulfil(self, customer: Payer, order: Order) -> PurchaseOutcome:
        """Book the revenue, extend or create the subscription, and want its key on the nodes."""
        if order.tariff is None or order.days is None:
            raise BusinessError(f"order {order.id} is for a subscription but names no plan")
        journal_id = await post(self.tx, self._journal("purchase", f"purchase:{order.id}", "revenue"))
        entitlement = await grant(
            self.tx,
            Grant(
                customer.id,
                order.tariff,
                timedelta(days=order.days),
                "payment",
                self.command.actor,
                order_id=order.id,
                money_in_id=self.money_in_id,
                journal_id=journal_id,
                price=order.price,
            ),
        )
        key_id = await want_present(self.tx, entitlement.subscription_id)
        if order.promo_code_id is not None:
            await use_promo(self.tx, order.id, order.promo_code_id, customer.id)
        payload = {"tariff": order.tariff, "days": order.days, "expires_at": entitlement.new_end.isoformat()}
        self.notices.append(Notice("purchase", f"order:{order.id}", customer.id, payload))
        return attrs.evolve(
            self._outcome(Result.ENTITLEMENT),
            subscription_id=entitlement.subscription_id,
            expires_at=entitlement.new_end,
            key_id=key_id,
        )

    async def credit(self, customer: Payer, kind: JournalKind) -> PurchaseOutcome:
        """Credit the balance: a top-up, or money that could not buy what it was sent for."""
        await post(self.tx, self._journal(kind, f"money_in:{self.money_in_id}", customer.id))
        payload = {"amount": self.booked.amount, "currency": self.booked.currency, "why": self.problem or kind}
        self.notices.append(Notice("balance_credited", f"money_in:{self.money_in_id}", customer.id, payload))
        return attrs.evolve(self._outcome(Result.BALANCE_CREDIT), credited=self.booked)

    async def park(self) -> PurchaseOutcome:
        """Open a case; what it is worth, if that is known, waits on the suspense account."""
        if self.booked:
            await post(self.tx, self._journal("suspense", f"money_in:{self.money_in_id}", "suspense"))
        case_id = await open_case(
            self.tx,
            "payment",
            f"money_in:{self.money_in_id}",
            customer_id=self._customer_id,
            money_in_id=self.money_in_id,
            details={
                "why": self.problem,
                "provider": self.command.provider,
                "amount": self.command.amount.amount,
                "asset": self.command.amount.currency,
                "payer_telegram_id": self.command.telegram_id,
                "order": self._order_id,
            },
        )
        return attrs.evolve(self._outcome(Result.CASE), case_id=case_id)

    @property
    def _customer_id(self) -> int | None:
        return None if self.customer is None else self.customer.id

    @property
    def _order_id(self) -> int | None:
        return None if self.order is None else self.order.id

    def _journal(self, kind: JournalKind, key: str, target: int | SystemAccount) -> Journal:
        return Journal(
            kind,
            key,
            move("world", target, self.booked),
            customer_id=self._customer_id,
            order_id=self._order_id,
            money_in_id=self.money_in_id,
            note=self.problem,
        )

    def _outcome(self, result: Result) -> PurchaseOutcome:
        return PurchaseOutcome(
            result,
            self.money_in_id,
            problem=self.problem,
            order_id=self._order_id,
            customer_id=self._customer_id,
        )
