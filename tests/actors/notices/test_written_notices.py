"""What the business really writes can be told: every row of the outbox, in both languages, to whom it is for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from actors.notices.rendering import LANGUAGES, text_of
from db.access.reminders import queue_reminders
from db.billing.adjustments import adjust_balance
from db.billing.compensation import compensate
from db.billing.grants import grant_access, grant_trial
from db.billing.orders import open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.refunds import refund_charge
from db.billing.renewals import set_auto_renew
from db.billing.withdrawals import approve_withdrawal, reject_withdrawal, request_withdrawal
from db.money import Money
from db.tx import Row, Tx
from tests.db.database import SEAL, Database

EXPECTED = {
    "access_granted",
    "balance_adjusted",
    "balance_credited",
    "case_opened",
    "compensation_credited",
    "purchase",
    "referral_reward",
    "refund_paid",
    "reminder_paid_24h",
    "reminder_paid_3h",
    "reminder_trial_6h",
    "withdrawal_approved",
    "withdrawal_rejected",
    "withdrawal_requested",
}


async def _top_up(tx: Tx) -> None:
    order = await open_topup(tx, 1001, Money(500_00), idempotency_key="top-up")
    await finalize_purchase(tx, FinalizePurchase("test", "top-up", order.quote.amount, order.id))


async def _orphan(tx: Tx) -> None:
    await finalize_purchase(tx, FinalizePurchase("test", "orphan", Money(100_00), None))


async def _rows(tx: Tx) -> list[Row]:
    return list(await tx.fetch("SELECT customer_id, kind, payload::text AS payload FROM outbox ORDER BY id"))


async def _move_money(database: Database) -> None:
    bought = await database.buy(1002)
    assert bought.subscription_id is not None
    await database.run(_top_up)
    await database.run(_orphan)
    for amount, key in ((Money(2000_00), "up"), (Money(-1_00), "down")):
        await database.run(adjust_balance, 1001, amount, reason="as agreed", actor="test", idempotency_key=key)
    await database.earn(1001, 1_500_00)
    for key, settle in (("w1", approve_withdrawal), ("w2", reject_withdrawal)):
        asked = await database.run(
            request_withdrawal,
            1001,
            Money(600_00),
            destination="card",
            idempotency_key=key,
            actor="front_end:test",
            seal=SEAL,
        )
        if settle is approve_withdrawal:
            await database.run(approve_withdrawal, asked.id, actor="test", reference="bank 1", second_above=None)
        else:
            await database.run(reject_withdrawal, asked.id, actor="test", reason="wrong card")


async def test_every_row_that_the_business_writes_has_a_text_in_both_languages(database: Database) -> None:
    await database.add_customer(1001)
    await database.add_customer(1002, 1001)
    for telegram_id in (1003, 1004, 1005, 1006):
        await database.add_customer(telegram_id)
    await _move_money(database)
    await database.run(grant_trial, 1003, actor="front_end:test")
    await database.run(grant_access, 1004, "plus", timedelta(days=7), idempotency_key="gift", actor="test")
    await database.buy(1005, charge_id="charge-5")
    await database.run(set_auto_renew, 1005, True, actor="test")
    refunded = await database.buy(1004, charge_id="charge-4")
    await database.run(refund_charge, "test", "charge-4", actor="test", idempotency_key="refund")
    assert refunded.subscription_id is not None
    failed = await database.buy(1006, charge_id="charge-6")
    assert failed.subscription_id is not None
    await database.run(compensate, failed.subscription_id, reason="no node took the key", actor="test")
    for days, hours in ((2, 20), (29, 1), (29, 22)):
        await database.move_clock(days=days, hours=hours)
        await database.run(queue_reminders, 100)
    rows = await database.run(_rows)
    for row in rows:
        payload = json.loads(row["payload"])
        now = datetime.now(UTC)
        for language in LANGUAGES.values():
            text = text_of(row["kind"], payload, language, now, for_operator=row["customer_id"] is None)
            assert text and "None" not in text
    assert EXPECTED - {row["kind"] for row in rows} == set()
