"""What a captured payment leads to: what was ordered, a credit to the balance, or a case for a human; exactly one of them.

`finalize_purchase` is the one door for money from outside: webhooks, pollers and operators all go through it. It is
one transaction without any network call; the VPN is told afterwards, by workers that find the key's row.
`Settlement` has the three ends.
"""

from datetime import timedelta

import attrs

from db.access.entitlements import Grant, grant
from db.access.wanted_keys import want_present
from db.billing.cases import open_case
from db.billing.charges import find_charge, record_charge, refuse_other_facts
from db.billing.ledger import Journal, JournalKind, Purse, SystemAccount, move, post
from db.billing.orders import Order, find_order, open_order, open_topup, order_from
from db.billing.payment_facts import FinalizePurchase, PaymentProblem, PaymentResult, PurchaseOutcome
from db.billing.promos import find_promo, use_promo
from db.billing.referrals import reward_notice, reward_referrer
from db.errors import BusinessError, ChargeConflict
from db.money import Money, convert
from db.tx import Tx
from db.work.audit import Notice, record_audit


@attrs.frozen
class Payer:
    """The customer whose payment it is."""

    id: int
    telegram_id: int
    referrer_id: int | None


@attrs.frozen
class Settlement:
    """A recorded charge on its way to one of its ends.

    The caller holds the customers' rows, calls one method once, and writes down the `notices`.
    """

    tx: Tx
    command: FinalizePurchase
    money_in_id: int
    booked: Money
    problem: PaymentProblem
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
        reward = await reward_referrer(self.tx, customer.id, journal_id, self.booked, self.money_in_id)
        self.notices.extend([] if reward is None else [reward_notice(reward)])
        return attrs.evolve(
            self._outcome(PaymentResult.ENTITLEMENT),
            subscription_id=entitlement.subscription_id,
            expires_at=entitlement.new_end,
            key_id=key_id,
        )

    async def credit(self, customer: Payer, kind: JournalKind) -> PurchaseOutcome:
        """Credit the purse `paid`: a top-up, or money that could not buy what it was sent for."""
        await post(self.tx, self._journal(kind, f"money_in:{self.money_in_id}", Purse(customer.id, "paid")))
        payload = {"amount": self.booked.amount, "currency": self.booked.currency, "why": self.problem or kind}
        self.notices.append(Notice("balance_credited", f"money_in:{self.money_in_id}", customer.id, payload))
        return attrs.evolve(self._outcome(PaymentResult.BALANCE_CREDIT), credited=self.booked)

    async def open_case(self) -> PurchaseOutcome:
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
                **({"stated": self.command.stated} if self.command.stated else {}),
                "payer_telegram_id": self.command.telegram_id,
                "order": self._order_id,
            },
        )
        return attrs.evolve(self._outcome(PaymentResult.CASE), case_id=case_id)

    @property
    def _customer_id(self) -> int | None:
        return None if self.customer is None else self.customer.id

    @property
    def _order_id(self) -> int | None:
        return None if self.order is None else self.order.id

    def _journal(self, kind: JournalKind, key: str, target: Purse | SystemAccount) -> Journal:
        return Journal(
            kind,
            key,
            move("world", target, self.booked),
            customer_id=self._customer_id,
            order_id=self._order_id,
            money_in_id=self.money_in_id,
            note=self.problem,
        )

    def _outcome(self, result: PaymentResult) -> PurchaseOutcome:
        return PurchaseOutcome(
            result,
            self.money_in_id,
            problem=self.problem,
            order_id=self._order_id,
            customer_id=self._customer_id,
        )


async def finalize_purchase(tx: Tx, command: FinalizePurchase) -> PurchaseOutcome:
    """Record a captured charge and do what it pays for, all or nothing, once.

    - It pays its pending order in time and exactly: a subscription is extended or created (whatever state the VPN is
      in), a top-up is credited.
    - It is late, a second payment of one order, of another amount, or names no order but a known customer: its value
      is credited to the customer's balance.
    - Its customer or its value is not known, or another than the order's customer paid: a case is opened,
      and roubles wait on the ledger's suspense account.

    Repeating a charge returns the first outcome and changes nothing, also when both run at once. Raises
    `ChargeConflict` when it was recorded with another amount, currency, customer or order.
    """
    order, owner = await _find_and_lock(tx, command)
    booked = _value(order, command.amount)
    paid_by_other = bool(order and owner and command.telegram_id and command.telegram_id != owner.telegram_id)
    is_exact = order is not None and command.amount == order.quote.amount
    customer = None if paid_by_other else owner
    recorded = await record_charge(
        tx,
        command.provider,
        command.charge_id,
        command.amount,
        booked,
        customer_id=None if customer is None else customer.id,
        order_id=None if order is None else order.id,
        pays=order.id if order is not None and is_exact and not paid_by_other else None,
        stated=command.stated,
    )
    if recorded is None:
        return await _replay(tx, command, owner)
    problem: PaymentProblem = ""
    if order is None:
        problem = "orphan"
    elif paid_by_other:
        problem = "payer"
    elif not is_exact:
        problem = "amount"
    elif not recorded.pays:
        problem = "duplicate" if (await find_order(tx, order.id)).state == "paid" else "late"
    money_in_id = recorded.money_in_id
    settlement = Settlement(tx, command, money_in_id, booked, problem, order, customer)
    if customer is None or not booked:
        outcome = await settlement.open_case()
    elif order is None or problem:
        outcome = await settlement.credit(customer, "payment_credit")
    elif order.kind == "topup":
        outcome = await settlement.credit(customer, "topup")
    else:
        outcome = await settlement.fulfil(customer, order)
    await record_audit(
        tx,
        command.actor,
        "finalize_purchase",
        *settlement.notices,
        customer_id=outcome.customer_id,
        subject=f"money_in:{money_in_id}",
        details={
            "provider": command.provider,
            "result": outcome.result.value,
            "problem": problem,
            "order": outcome.order_id,
            "amount": command.amount.amount,
            "asset": command.amount.currency,
            "booked": booked.amount,
        },
    )
    return outcome


async def record_manual_purchase(
    tx: Tx,
    telegram_id: int,
    tariff: str,
    days: int,
    provider: str,
    charge_id: str,
    amount: Money | None = None,
    *,
    promo_code: str | None = None,
    actor: str = "operator",
) -> PurchaseOutcome:
    """Record a payment that an operator saw: open the order and finalize it in one transaction.

    `amount` defaults to the customer's price; another one does not buy the plan but is credited, as for any payment.
    Repeatable by (provider, charge id) like `finalize_purchase`; raises as that and `open_order` do.
    """
    order = await _recorded_order(tx, provider, charge_id)
    if order is None:
        name = f"manual:{provider}:{charge_id}"
        order = await open_order(tx, telegram_id, tariff, days, idempotency_key=name, promo_code=promo_code)
    elif (order.tariff, order.days) != (tariff, days):
        bought = "a top-up" if order.kind == "topup" else f"{order.tariff} {order.days} d"
        raise ChargeConflict(
            f"{provider} charge {charge_id!r} was recorded before for {bought}, not for {tariff} {days} d; "
            "nothing was changed"
        )
    elif promo_code is not None and order.entered_promo_id != (await find_promo(tx, promo_code)).id:
        raise ChargeConflict(
            f"{provider} charge {charge_id!r} was recorded before, but not with promo code {promo_code!r}; "
            "nothing was changed"
        )
    captured = order.quote.amount if amount is None else amount
    command = FinalizePurchase(provider, charge_id, captured, order.id, telegram_id, actor)
    return await finalize_purchase(tx, command)


async def record_manual_topup(
    tx: Tx, telegram_id: int, provider: str, charge_id: str, amount: Money, *, actor: str = "operator"
) -> PurchaseOutcome:
    """Record a top-up that an operator saw: open the order and finalize it in one transaction.

    Repeatable by (provider, charge id) like `finalize_purchase`; raises as that and `open_topup` do.
    """
    order = await _recorded_order(tx, provider, charge_id)
    if order is None:
        order = await open_topup(tx, telegram_id, amount, idempotency_key=f"manual:{provider}:{charge_id}")
    elif order.kind != "topup":
        raise ChargeConflict(
            f"{provider} charge {charge_id!r} was recorded before for {order.tariff} {order.days} d, not for a top-up; "
            "nothing was changed"
        )
    return await finalize_purchase(tx, FinalizePurchase(provider, charge_id, amount, order.id, telegram_id, actor))


async def _recorded_order(tx: Tx, provider: str, charge_id: str) -> Order | None:
    """The order that the charge was recorded with; `None` if the charge is new."""
    known = await find_charge(tx, provider, charge_id)
    if known is None:
        return None
    if known.order_id is None:
        raise BusinessError(
            f"{provider} charge {charge_id!r} was recorded before without an order (money_in {known.id})"
        )
    return await find_order(tx, known.order_id)


async def _find_and_lock(tx: Tx, command: FinalizePurchase) -> tuple[Order | None, Payer | None]:
    """The order that the charge names, if it exists, and its customer, or else the payer if that is a customer.

    The rows of the customer and of the referrer are locked, in sorted order.
    """
    row = await tx.fetchrow(
        """
        WITH named AS (
            SELECT * FROM orders WHERE id = $1
        ), owner AS (
            SELECT id, telegram_id, referrer_id FROM customers
            WHERE id = coalesce((SELECT customer_id FROM named), (SELECT id FROM customers WHERE telegram_id = $2))
        ), locked AS (
            SELECT c.id FROM customers c WHERE c.id IN (SELECT id FROM owner UNION ALL SELECT referrer_id FROM owner)
            ORDER BY c.id FOR NO KEY UPDATE
        )
        SELECT named.*, owner.id AS owner_id, owner.telegram_id, owner.referrer_id,
               (SELECT count(*) FROM locked)  -- read, or else it would not be run
        FROM owner LEFT JOIN named ON true
        """,
        command.order_id,
        command.telegram_id,
    )
    if row is None:
        return None, None
    owner = Payer(row["owner_id"], row["telegram_id"], row["referrer_id"])
    return (None if row["id"] is None else order_from(row)), owner


def _value(order: Order | None, amount: Money) -> Money:
    """What the ledger books: the order's price if the quote was met, roubles as they are, the rest at the quoted rate."""
    if order is not None and amount == order.quote.amount:
        return order.price
    if amount.currency == "RUB":
        return amount
    if order is not None and amount.currency == order.quote.amount.currency:
        return convert(amount, order.quote.rate)
    return Money(0)


async def _replay(tx: Tx, command: FinalizePurchase, owner: Payer | None) -> PurchaseOutcome:
    charge = await find_charge(tx, command.provider, command.charge_id)
    if charge is None:
        raise BusinessError(f"{command.provider} charge {command.charge_id!r} is being recorded; report it again")
    payer = owner.telegram_id if owner is not None and command.telegram_id is None else command.telegram_id
    refuse_other_facts(charge, command.amount, telegram_id=payer, order_id=command.order_id, stated=command.stated)
    row = await tx.fetchrow(
        """
        SELECT e.subscription_id, e.new_end,
               (SELECT key_id FROM vpn_keys k WHERE k.subscription_id = e.subscription_id ORDER BY k.id DESC LIMIT 1) AS key_id,
               EXISTS (SELECT FROM journals WHERE money_in_id = m.id AND kind IN ('topup', 'payment_credit')) AS credited,
               (SELECT id FROM cases WHERE money_in_id = m.id) AS case_id
        FROM money_in m LEFT JOIN entitlement_events e ON e.money_in_id = m.id
        WHERE m.id = $1
        """,
        charge.id,
    )
    assert row is not None, "the charge was just found and is never deleted"
    result = PaymentResult.BALANCE_CREDIT if row["credited"] else PaymentResult.ENTITLEMENT
    if row["case_id"] is not None:
        result = PaymentResult.CASE
    return PurchaseOutcome(
        result,
        charge.id,
        replayed=True,
        order_id=charge.order_id,
        customer_id=charge.customer_id,
        subscription_id=row["subscription_id"],
        expires_at=row["new_end"],
        key_id=row["key_id"],
        credited=charge.booked if row["credited"] else None,
        case_id=row["case_id"],
    )
