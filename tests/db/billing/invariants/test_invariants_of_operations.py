"""The invariants cover refunds, withdrawals, cases, promo codes and what was taken back, each seen when it breaks."""

from db.billing.adjustments import adjust_balance
from db.billing.cases import credit_case
from db.billing.invariants import check_invariants
from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.promos import add_promo
from db.billing.purchases import finalize_purchase
from db.billing.refunds import refund_charge
from db.billing.withdrawals import approve_withdrawal, reject_withdrawal, request_withdrawal
from db.money import Money
from tests.db.database import SEAL, Database

BREAKS = [
    ("money_rule1_every_charge_ends_once", "UPDATE cases SET state = 'closed', closed_at = now(), resolution = 'x'"),
    ("money_i06_paid_orders_have_their_effect", "DELETE FROM promo_uses"),
    ("money_i06_paid_orders_have_their_effect", "UPDATE promo_codes SET uses = uses + 1"),
    ("money_i07_rewards_follow_purchases", "UPDATE refunds SET clawback_journal_id = NULL"),
    (
        "money_i07_rewards_follow_purchases",
        "UPDATE postings SET amount = amount * 10 WHERE journal_id IN (SELECT id FROM journals WHERE kind = 'referral_clawback')",
    ),
    ("money_i08_refunds_within_captured", "UPDATE refunds SET amount = amount - 1"),
    ("money_i08_refunds_within_captured", "DELETE FROM refunds"),
    (
        "money_i09_ends_follow_events",
        "UPDATE entitlement_events SET period = period + interval '1 h' WHERE kind = 'refund'",
    ),
    ("money_i11_messages_follow_facts", "DELETE FROM outbox WHERE kind = 'refund_paid'"),
    ("money_i11_messages_follow_facts", "DELETE FROM outbox WHERE kind = 'withdrawal_approved'"),
    ("money_i11_messages_follow_facts", "DELETE FROM outbox WHERE kind = 'withdrawal_requested'"),
    ("money_i11_messages_follow_facts", "DELETE FROM outbox WHERE kind = 'balance_adjusted'"),
    ("money_i13_world_equals_outside", "UPDATE refunds SET amount = amount - 1"),
    ("money_i13_world_equals_outside", "UPDATE withdrawals SET amount = amount + 1 WHERE state = 'reserved'"),
    (
        "money_i13_world_equals_outside",
        "UPDATE withdrawals SET state = 'paid', reference = 'x', reason = NULL WHERE state = 'rejected'",
    ),
]


async def everything(database: Database) -> None:
    """One of each operation."""
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.run(add_promo, "half", 50, actor="o")
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="o", promo_code="half")
    await database.run(finalize_purchase, FinalizePurchase("test", "c0", order.price, order.id))
    await database.buy(charge_id="c1")
    await database.run(refund_charge, "test", "c1", actor="o", idempotency_key="r")
    await database.run(adjust_balance, 1001, Money(300_000), reason="x", actor="o", idempotency_key="a")
    await database.earn(1001, 200_000)
    for number in range(3):
        await database.run(
            request_withdrawal,
            1001,
            Money(60_000),
            destination="card",
            idempotency_key=f"w{number}",
            actor="front_end:test",
            seal=SEAL,
        )
    await database.run(approve_withdrawal, 1, actor="o", reference="bank", second_above=None)
    await database.run(reject_withdrawal, 2, actor="o", reason="no")
    for charge_id in ("s1", "s2"):
        await database.run(finalize_purchase, FinalizePurchase("test", charge_id, Money(5000), None, 404))
    await database.run(credit_case, 1, 1001, actor="o")


async def test_one_of_each_operation_breaks_nothing_and_each_violation_is_seen(database: Database) -> None:
    await everything(database)
    waiting = [line for line in await database.broken_invariants(at_rest=True) if "money_i10" not in line]
    assert waiting == []
    async with database.connect() as connection:
        for view, change in BREAKS:
            await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
            assert (await connection.execute(change)) not in ("UPDATE 0", "DELETE 0"), change
            found = {invariant.name: invariant for invariant in await check_invariants(connection)}
            assert not found[view].holds, (view, change)
            await connection.execute("ROLLBACK")
