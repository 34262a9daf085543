"""Half a year of a shop in which everything happens that moves money or access, by the public operations alone."""

from datetime import timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

import attrs

from db.access.entitlements import follow_tariffs
from db.access.subscriptions import expire_page, mark_revoked
from db.access.undelivered import open_prolongation, prolong_page
from db.billing.adjustments import adjust_balance
from db.billing.cases import credit_case
from db.billing.compensation import compensate
from db.billing.grants import grant_access, grant_trial
from db.billing.orders import Quote, UsedRate, cancel_order, open_order, open_topup
from db.billing.payment_facts import Captured, FinalizePurchase, PurchaseOutcome
from db.billing.pricing import set_personal_discount, set_rate, set_vip
from db.billing.promos import add_promo
from db.billing.provider_events import settle_event, store_event
from db.billing.provider_refunds import ProviderRefund, RefundAnswer, reserve_refund, settle_refund
from db.billing.purchases import finalize_purchase
from db.billing.referrals import set_hold_days
from db.billing.refunds import refund_charge
from db.billing.renewal_schedule import claim_renewals
from db.billing.renewals import renew, set_auto_renew
from db.billing.withdrawals import approve_withdrawal, confirm_withdrawal, reject_withdrawal, request_withdrawal
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.money import Money
from db.opening.openings import OpeningAccess, OpeningBalance, note_used_trial, open_access, open_balance
from db.tx import Tx
from db.work.audit import act_as
from db.work.claims import enlist_claimer
from runtime.operators import Identity, Role
from tests.db.database import SEAL, Database

BOSS = 500
"""Invites everybody, and reaches the second tier."""
OPERATOR = "operator"
SECOND = Identity("operator", "boris", Role.MONEY, "token")
"""Who confirms payouts."""


@attrs.define
class Shop:
    """Customers of one database, and what they do."""

    database: Database
    day: float = 0.0
    numbers: int = 0

    async def pass_days(self, days: float) -> None:
        """Let time pass, and do what workers do meanwhile."""
        self.day += days
        await self.database.move_clock(days=self.day)
        await self.work()

    async def work(self) -> None:
        """Renew what is due, follow tariffs, expire what has ended."""
        owner = await self.database.run(enlist_claimer, "worker")
        for claim in await self.database.run(claim_renewals, owner, 100, 60.0):
            await self.database.run(renew, claim)
        await self.database.run(follow_tariffs, 1000)
        await self.database.run(expire_page, 0, 1000)

    async def deliver(self) -> None:
        """Every pending key is confirmed by the node."""
        owner = await self.database.run(enlist_claimer, "keys")
        while claims := await self.database.run(claim_activations, owner, 50, 60.0):
            for claim in claims:
                await self.database.run(confirm_activation, claim, [NodeConfirmation("first")])

    async def join(self, telegram_id: int, referrer: int | None = None) -> int:
        """A new customer."""
        await self.database.add_customer(telegram_id, referrer=referrer)
        return telegram_id

    async def pay(
        self, telegram_id: int, tariff: str = "basic", days: int = 30, *, promo: str | None = None, wait: float = 0
    ) -> str:
        """Buy a plan by a provider whose event is kept; returns the charge."""
        self.numbers += 1
        charge = f"charge-{self.numbers}"
        order = await self.database.run(open_order, telegram_id, tariff, days, idempotency_key=charge, promo_code=promo)
        if wait:
            await self.pass_days(wait)
        await self._event(charge, FinalizePurchase("shop", charge, order.quote.amount, order.id))
        return charge

    async def topup(self, telegram_id: int, kopecks: int) -> str:
        """Top up the balance; returns the charge."""
        self.numbers += 1
        charge = f"top-{self.numbers}"
        order = await self.database.run(open_topup, telegram_id, Money(kopecks), idempotency_key=charge)
        await self._event(charge, FinalizePurchase("shop", charge, Money(kopecks), order.id))
        return charge

    async def spend(self, telegram_id: int, tariff: str = "basic", days: int = 30) -> None:
        """Buy a plan from the balance."""
        self.numbers += 1
        await self.database.buy_from_balance(telegram_id, tariff, days, key=f"balance-{self.numbers}")

    async def adjust(self, telegram_id: int, kopecks: int) -> None:
        """An operator gives money or takes it off."""
        self.numbers += 1
        await self.database.run(
            adjust_balance,
            telegram_id,
            Money(kopecks),
            reason="by agreement",
            actor=OPERATOR,
            idempotency_key=f"adjust-{self.numbers}",
        )

    async def refund(self, charge: str, kopecks: int | None = None, **how: bool) -> None:
        """Money of a charge goes back."""
        self.numbers += 1
        await self.database.run(
            refund_charge,
            "shop",
            charge,
            amount=None if kopecks is None else Money(kopecks),
            actor=OPERATOR,
            idempotency_key=f"refund-{self.numbers}",
            **how,
        )

    async def withdraw(self, telegram_id: int, kopecks: int) -> int:
        """Ask for a payout; returns its number."""
        self.numbers += 1
        asked = await self.database.run(
            request_withdrawal,
            telegram_id,
            Money(kopecks),
            destination="card 4000",
            actor="front_end:test",
            seal=SEAL,
            idempotency_key=f"withdraw-{self.numbers}",
        )
        return asked.id

    async def confirm(self, number: int) -> None:
        """A second operator agrees to a payout."""

        async def agree(tx: Tx) -> None:
            await act_as(tx, SECOND)
            await confirm_withdrawal(tx, number, actor=SECOND.actor)

        await self.database.run(agree)

    async def refund_at_provider(
        self, charge: str, kopecks: int | None, *states: Literal["done", "pending", "refused"], provider: str = "shop"
    ) -> ProviderRefund:
        """A provider is asked to give a charge back, and answers."""
        self.numbers += 1
        asked = await self.database.run(
            reserve_refund,
            provider,
            charge,
            amount=None if kopecks is None else Money(kopecks),
            actor=OPERATOR,
            idempotency_key=f"at-provider-{self.numbers}",
        )
        for state in states:
            await self.answer(asked, state)
        return asked

    async def answer(self, asked: ProviderRefund, state: Literal["done", "pending", "refused"]) -> None:
        """What the provider says of a refund."""
        await self.database.run(settle_refund, asked, RefundAnswer(state, f"re-{asked.id}", "no"))

    async def subscription(self, telegram_id: int) -> int:
        """The number of the customer's subscription."""
        number: int = await self.database.fetchval(
            "SELECT s.id FROM subscriptions s JOIN customers c ON c.id = s.customer_id WHERE c.telegram_id = $1",
            telegram_id,
        )
        return number

    async def _event(self, charge: str, wanted: FinalizePurchase) -> PurchaseOutcome | None:
        event = await self.database.run(store_event, "shop", f"event-{charge}", b"{}")
        await self.database.run(settle_event, event, Captured(wanted))
        return None


async def live(database: Database) -> Shop:
    """The whole history."""
    shop = Shop(database)
    await database.run(register_node, "first", {"host": "first"}, inbounds=["in"])
    await _openings(shop)
    await _payers(shop)
    await _spenders(shop)
    await _strangers(shop)
    await _refunds(shop)
    await _refunds_at_providers(shop)
    await _chargebacks(shop)
    await _rewards(shop)
    await _undelivered(shop)
    await shop.pass_days(20)
    await shop.deliver()
    await shop.pass_days(70)
    await database.move_clock(days=shop.day + 0.2)  # and nothing is written any more
    return shop


async def _openings(shop: Shop) -> None:
    """Customers of another system, with what they had there: purses, access, keys, a used trial, a referrer."""
    run = shop.database.run
    now = await shop.database.fetchval("SELECT atlas_now()")
    for number, referrer in ((700, None), (701, 700), (702, 700), (703, None)):
        await shop.join(number, referrer)
    balances = {
        700: OpeningBalance(credit=Money(3_000), earned=Money(70_000)),
        701: OpeningBalance(
            paid=Money(40_000),
            rewarded_paid=Money(10_000),
            spent_paid=Money(90_000),
            paid_since=now - timedelta(days=400),
        ),
        702: OpeningBalance(spent_paid=Money(14_900), paid_since=now - timedelta(days=20)),
        703: OpeningBalance(credit=Money(15_000), earned=Money(500), debt=Money(-2_000)),
    }
    for number, brought in balances.items():
        await run(open_balance, number, brought, idempotency_key=f"old:{number}", actor="import")
    for number, access in {
        701: OpeningAccess(
            "basic", now + timedelta(days=3.5), UUID(int=701), "payment", 30, Money(9_900), auto_renew=True
        ),
        702: OpeningAccess("plus", now + timedelta(days=200, seconds=7), UUID(int=702), "admin"),
        703: OpeningAccess("basic", now + timedelta(days=10), UUID(int=703), "balance", 90, Money(39_900)),
    }.items():
        await run(open_access, number, access, idempotency_key=f"old:{number}", actor="import")
    await run(note_used_trial, 702, now - timedelta(days=300), actor="import")
    await shop.deliver()
    await shop.withdraw(700, 50_000)
    await shop.pay(703)
    await shop.pass_days(3.4)  # 701 is renewed: what was rewarded there is spent first
    await run(set_auto_renew, 701, False, actor=OPERATOR)


async def _payers(shop: Shop) -> None:
    """Purchases, upgrades, downgrades, trials, gifts, discounts, promo codes, revocations."""
    run = shop.database.run
    await shop.join(1)
    await shop.pay(1)
    await shop.deliver()
    await shop.pay(1, "plus")
    await shop.pass_days(3)
    await shop.pay(1, "basic", 90)
    await shop.join(2)
    await run(grant_trial, 2, actor="front_end:test")
    await shop.pass_days(1)
    await shop.pay(2)
    await shop.join(3)
    await run(set_vip, 3, True, actor=OPERATOR)
    await shop.pay(3, "plus", 90)
    await run(set_personal_discount, 3, 10, actor=OPERATOR)
    await shop.join(4)
    await run(add_promo, "half", 50, max_uses=5, actor=OPERATOR)
    await shop.pay(4, promo="half")
    await run(open_order, 4, "plus", 30, idempotency_key="left")
    await run(cancel_order, await shop.database.fetchval("SELECT max(id) FROM orders"), actor=OPERATOR)
    await shop.join(5)
    await run(grant_access, 5, "plus", timedelta(days=7), idempotency_key="gift-5", actor=OPERATOR)
    await shop.pay(5)
    await shop.pass_days(2)
    await run(mark_revoked, 5, actor=OPERATOR)
    await shop.pass_days(1)
    await shop.pay(5, "basic", 90)
    await shop.join(6)
    await shop.pay(6, wait=0.1)  # late: it is credited


async def _spenders(shop: Shop) -> None:
    """Top-ups, purchases and renewals from the balance, of all three purses."""
    run = shop.database.run
    await shop.join(BOSS)
    await shop.join(10, BOSS)
    await shop.topup(10, 50_000)
    await shop.adjust(10, 10_000)
    await shop.spend(10)
    await run(set_auto_renew, 10, True, actor=OPERATOR)
    await shop.join(11, BOSS)
    await shop.adjust(11, 20_000)
    await shop.adjust(11, -4_000)
    await shop.topup(11, 10_000)
    await shop.spend(11)
    await shop.pass_days(29.9)
    await shop.pass_days(29.9)
    await shop.deliver()


async def _strangers(shop: Shop) -> None:
    """Money of nobody known, of another asset, and of no order."""
    run = shop.database.run
    await shop.join(20)
    parked = await run(finalize_purchase, FinalizePurchase("shop", "stranger", Money(5_000), None, 999_999))
    assert parked.case_id is not None
    await run(credit_case, parked.case_id, 20, actor=OPERATOR)
    odd = await run(finalize_purchase, FinalizePurchase("shop", "odd", Money(1_000_000, "USDT"), None, 20))
    assert odd.case_id is not None
    await run(credit_case, odd.case_id, 20, actor=OPERATOR, amount=Money(9_000))
    await run(finalize_purchase, FinalizePurchase("shop", "gone", Money(7_000), None, 999_998))
    await shop.refund("gone")
    await run(finalize_purchase, FinalizePurchase("shop", "waits", Money(6_000), None, 999_997))
    await run(finalize_purchase, FinalizePurchase("shop", "no-order", Money(8_000), None, 20))
    await _misfits(shop)


async def _misfits(shop: Shop) -> None:
    """A second payment, another amount or payer, and a crypto currency: exact, not exact, late, of another asset."""
    run = shop.database.run
    await shop.join(25)
    await shop.join(26)
    order = await run(open_order, 25, "basic", 30, idempotency_key="fits")
    await run(finalize_purchase, FinalizePurchase("shop", "less", Money(14_000), order.id))
    await run(finalize_purchase, FinalizePurchase("shop", "other", Money(14_900), order.id, 26))
    await run(finalize_purchase, FinalizePurchase("shop", "exact", Money(14_900), order.id))
    await run(finalize_purchase, FinalizePurchase("shop", "twice", Money(14_900), order.id))
    rate = await run(set_rate, "USDT", Decimal(80), actor=OPERATOR)
    used = UsedRate(rate.source, rate.taken_at, timedelta(days=1), Decimal(70), Decimal(90))
    quote = Quote(Money(1_862_500, "USDT"), Decimal(80), used)
    for number, (amount, asset, wait) in enumerate(
        [
            (1_862_500, "USDT", 0),
            (1_862_501, "USDT", 0),
            (1_000_003, "USDT", 0),
            (1_862_500, "USDT", 0.1),
            (5, "TON", 0),
        ]
    ):
        order = await run(open_order, 26, "basic", 30, idempotency_key=f"crypto-{number}", quote=quote)
        if wait:
            await shop.pass_days(wait)
        await run(finalize_purchase, FinalizePurchase("crypto", f"coin-{number}", Money(amount, asset), order.id))
    await shop.refund("less", 4_000)
    order = await run(open_order, 26, "basic", 30, idempotency_key="given-up")
    await run(cancel_order, order.id, actor=OPERATOR)
    await run(finalize_purchase, FinalizePurchase("shop", "given-up", Money(14_900), order.id))


async def _refunds(shop: Shop) -> None:
    """Refunds whole and in part, compensation, and what is compensated and refunded."""
    run = shop.database.run
    for number in range(30, 36):
        await shop.join(number, BOSS)
    first = await shop.pay(30, "basic", 90)
    await shop.deliver()
    await shop.pass_days(1)
    await shop.pay(30)
    await shop.refund(first, 5_000)
    await shop.refund(first)
    second = await shop.pay(31)
    await shop.refund(second, 1_000)
    top = await shop.topup(32, 30_000)
    await shop.refund(top, 12_000)
    third = await shop.pay(33)
    await shop.deliver()
    await shop.pass_days(10)
    await run(compensate, await shop.subscription(33), reason="no key works", actor=OPERATOR)
    await shop.refund(third, 2_000)
    fourth = await shop.pay(34)
    await shop.refund(fourth, revoke=False)
    fifth = await shop.pay(35)
    await shop.deliver()
    await shop.pass_days(40)
    await shop.refund(fifth)


async def _refunds_at_providers(shop: Shop) -> None:
    """Made in part and whole, refused, still under way, and made of what was refunded meanwhile."""
    for number in range(50, 55):
        await shop.join(number)
    await shop.refund_at_provider(await shop.topup(50, 20_000), 5_000, "pending", "done")
    await shop.refund_at_provider(await shop.topup(51, 21_000), None, "refused")
    await shop.refund_at_provider(await shop.topup(52, 22_000), None)
    await shop.refund_at_provider("coin-1", 4_001, "done", provider="crypto")
    await shop.refund_at_provider("coin-1", 4_001, "pending", provider="crypto")
    top = await shop.topup(53, 23_000)
    asked = await shop.refund_at_provider(top, 20_000)
    await shop.refund(top, chargeback=True)
    await shop.answer(asked, "done")


async def _chargebacks(shop: Shop) -> None:
    """Chargebacks of money that was spent, with and without a loss, and of what was compensated."""
    run = shop.database.run
    for number in range(40, 47):
        await shop.join(number, BOSS)
    top = await shop.topup(40, 40_000)
    await shop.spend(40)
    await shop.spend(40)
    await shop.deliver()
    await shop.pass_days(5)
    await shop.refund(top, chargeback=True)
    top = await shop.topup(41, 20_000)
    await shop.spend(41)
    await shop.refund(top, chargeback=True, write_off=True)
    bought = await shop.pay(42, "plus", 90)
    await run(compensate, await shop.subscription(42), reason="no key works", actor=OPERATOR)
    await shop.spend(42)
    await shop.refund(bought, chargeback=True)
    top = await shop.topup(43, 20_000)
    await shop.spend(43)
    await shop.refund(top, write_off=True)
    top = await shop.topup(44, 20_000)
    await shop.topup(44, 20_000)
    await shop.spend(44)
    await shop.spend(44)
    await shop.pass_days(1)
    await shop.refund(top, chargeback=True)
    top = await shop.topup(45, 33_333)
    await shop.adjust(45, 20_000)
    await shop.spend(45)
    await shop.spend(45, "plus")
    await shop.pass_days(1)
    await shop.refund(top, 10_001, chargeback=True)
    await shop.refund(top, 11_111, chargeback=True)
    bought = await shop.pay(46)
    await shop.refund(bought, 3_333)
    await shop.refund(bought, 3_334)
    await shop.refund(bought, 3_335, chargeback=True)


async def _rewards(shop: Shop) -> None:
    """Tiers, maturity, withdrawals, and claw-backs that leave a debt which later rewards pay."""
    run = shop.database.run
    await run(set_hold_days, 5)
    charges = []
    for number in range(100, 124):
        await shop.join(number, BOSS)
        charges.append(await shop.pay(number, "plus", 365))
    await shop.pass_days(6)
    paid = await shop.withdraw(BOSS, 100_000)
    rejected = await shop.withdraw(BOSS, 60_000)
    await shop.withdraw(BOSS, 50_000)
    await shop.confirm(paid)
    await run(approve_withdrawal, paid, actor=OPERATOR, reference="bank-1", second_above=Money(50_000))
    await run(reject_withdrawal, rejected, actor=OPERATOR, reason="no such card")
    await run(set_hold_days, 0)
    rest = await shop.database.fetchval(
        "SELECT balance FROM accounts a JOIN customers c ON c.id = a.customer_id WHERE telegram_id = $1 AND kind = 'earned'",
        BOSS,
    )
    await shop.adjust(BOSS, -(rest // 2))
    await run(
        approve_withdrawal,
        await shop.withdraw(BOSS, rest - rest // 2 - 4_000),
        actor=OPERATOR,
        reference="bank-2",
        second_above=None,
    )
    for charge in charges[:6]:
        await shop.refund(charge)
    await shop.join(150, BOSS)
    await shop.pay(150, "plus", 365)
    await shop.join(151, BOSS)
    await shop.pay(151, "plus", 365)
    await shop.refund(charges[7], 100_000)


async def _undelivered(shop: Shop) -> None:
    """Access that came late, and an outage that is made good."""
    run = shop.database.run
    await shop.join(60)
    await shop.pay(60)
    await shop.pass_days(0.5)
    await shop.deliver()

    async def outage(tx: Tx) -> None:
        now = await tx.fetchval("SELECT atlas_now()")
        made_good = await open_prolongation(
            tx, now - timedelta(hours=3), now - timedelta(hours=1), reason="the line was cut", actor=OPERATOR
        )
        while await prolong_page(tx, made_good, actor=OPERATOR):
            pass

    await run(outage)
