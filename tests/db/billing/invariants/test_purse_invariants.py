"""The views see each rule of purses and rewards broken: money in another purse, of another customer, or out of nothing."""

from db.billing.adjustments import adjust_balance
from db.billing.compensation import compensate
from db.billing.invariants import check_invariant
from db.billing.refunds import refund_charge
from db.billing.withdrawals import reject_withdrawal, request_withdrawal
from db.money import Money
from tests.db.database import SEAL, Database

PURSES = "money_i14_purses_follow_rules"
REWARDS = "money_i07_rewards_follow_purchases"
FLOORS = "money_i04_no_balance_below_floor"


def into(journal: str, purse: str, wanted: str) -> str:
    """The leg of one journal that is on a purse moves to another purse of the same customer."""
    return f"""
        UPDATE postings p SET account_id = b.id FROM accounts a, accounts b
        WHERE p.account_id = a.id AND a.kind = '{purse}' AND b.kind = '{wanted}' AND b.customer_id = a.customer_id
          AND p.journal_id = (SELECT min(id) FROM journals WHERE kind = '{journal}')
    """


BREAKS = [
    (PURSES, into("topup", "paid", "credit")),
    (PURSES, into("topup", "paid", "earned")),
    (PURSES, into("compensation", "credit", "paid")),
    (PURSES, into("admin_adjust", "credit", "earned")),
    (PURSES, into("referral_reward", "earned", "paid")),
    (PURSES, into("referral_clawback", "earned", "paid")),
    (PURSES, into("withdrawal_reserve", "earned", "paid")),
    (PURSES, into("withdrawal_release", "earned", "paid")),
    (PURSES, into("balance_purchase", "paid", "debt")),
    (
        PURSES,
        "UPDATE postings SET amount = -amount WHERE journal_id = (SELECT id FROM journals WHERE kind = 'compensation')",
    ),
    (
        PURSES,
        "UPDATE postings p SET account_id = b.id FROM accounts a, accounts b, journals j "
        "WHERE p.account_id = a.id AND a.kind = 'paid' AND b.kind = 'paid' AND b.customer_id <> a.customer_id "
        "AND p.journal_id = j.id AND j.kind = 'topup'",
    ),
    (PURSES, "UPDATE journals SET kind = 'purse_split' WHERE kind = 'compensation'"),
    (
        PURSES,
        "INSERT INTO purse_openings (customer_id, paid, credit, earned, debt, rewarded_paid, spent_paid, last_journal) "
        "VALUES (1, 5, 0, 0, 0, 0, 0, 0)",
    ),
    (PURSES, "UPDATE journals SET kind = 'opening' WHERE kind = 'topup'"),
    (
        PURSES,
        "INSERT INTO openings (customer_id, idempotency_key, currency, paid, credit, earned, debt, rewarded_paid, spent_paid, "
        "journal_id, actor) "
        "SELECT customer_id, 'old', 'RUB', 7, 0, 0, 0, 0, 0, id, 'import' FROM journals WHERE kind = 'topup' LIMIT 1",
    ),
    (
        PURSES,
        "UPDATE postings SET account_id = (SELECT id FROM accounts WHERE kind = 'opening') "
        "WHERE account_id = (SELECT id FROM accounts WHERE kind = 'world')",
    ),
    (PURSES, "UPDATE withdrawals SET from_paid = 1 WHERE state = 'rejected'"),
    (PURSES, "INSERT INTO accounts (kind, customer_id, currency, balance) VALUES ('customer', 1, 'RUB', 7)"),
    (
        FLOORS,
        "ALTER TABLE accounts DROP CONSTRAINT debt_not_above_zero; UPDATE accounts SET balance = 1 WHERE kind = 'debt'",
    ),
    (REWARDS, "UPDATE referral_rewards SET base = base + 10 WHERE money_in_id IS NULL"),
    (REWARDS, "UPDATE referral_rewards SET money_in_id = NULL WHERE money_in_id IS NOT NULL"),
    (
        REWARDS,
        "UPDATE referral_rewards SET spending_journal_id = (SELECT min(id) FROM journals WHERE kind = 'topup') "
        "WHERE id = (SELECT min(id) FROM referral_rewards WHERE money_in_id IS NULL)",
    ),
    (
        REWARDS,
        "ALTER TABLE referral_rewards DROP CONSTRAINT a_new_reward_names_its_purchase; "
        "UPDATE referral_rewards SET spending_journal_id = NULL, base = NULL, matures_at = NULL WHERE money_in_id IS NOT NULL",
    ),
    (REWARDS, "UPDATE journals SET kind = 'admin_adjust' WHERE kind = 'balance_purchase'"),
    (REWARDS, "DELETE FROM referral_rewards WHERE money_in_id IS NULL"),
    (REWARDS, "UPDATE reward_takebacks SET amount = amount - 1"),
    (REWARDS, "DELETE FROM reward_takebacks"),
    (REWARDS, "UPDATE reward_takebacks SET amount = amount * 50"),
    (
        REWARDS,
        "INSERT INTO purse_openings (customer_id, paid, credit, earned, debt, rewarded_paid, spent_paid, last_journal) "
        "SELECT id, 9, 0, 0, 0, 9, 0, 0 FROM customers WHERE telegram_id = 1001",
    ),
]


async def everything(database: Database) -> None:
    """One of each journal that moves a purse."""
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    bought = await database.buy(charge_id="c1")
    await database.run(refund_charge, "test", "c1", amount=Money(7_000), actor="o", idempotency_key="r")
    await database.topup(1001, 20_000)
    await database.buy_from_balance()
    await database.run(adjust_balance, 1001, Money(5_000), reason="x", actor="o", idempotency_key="a")
    assert bought.subscription_id is not None
    await database.run(compensate, bought.subscription_id, reason="x", actor="o")
    await database.earn(2002, 60_000)
    found = await database.run(
        request_withdrawal,
        2002,
        Money(60_000),
        destination="card",
        idempotency_key="w",
        actor="front_end:test",
        seal=SEAL,
    )
    await database.run(reject_withdrawal, found.id, actor="o", reason="no")


async def test_each_rule_of_purses_and_rewards_is_seen_when_it_is_broken(database: Database) -> None:
    await everything(database)
    assert await database.broken_invariants() == []
    async with database.connect() as connection:
        for view, change in BREAKS:
            await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
            assert (await connection.execute(change)) not in ("UPDATE 0", "DELETE 0", "INSERT 0 0"), change
            found = await check_invariant(connection, view, at_rest=False)
            assert not found.holds, (view, change)
            await connection.execute("ROLLBACK")
