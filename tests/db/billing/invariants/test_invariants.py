"""Every invariant view sees its violation: corruption that the triggers would refuse is written past them."""

import pytest

from db.billing.invariants import check_invariants
from tests.db.database import Database

BREAKS = {
    "money_chargebacks_are_whole": "INSERT INTO undone_purchases (refund_id, event_id, base, value) "
    "SELECT 1, id, 1, 0 FROM entitlement_events LIMIT 1",
    "money_rule1_every_charge_ends_once": "DELETE FROM entitlement_events",
    "money_i01_postings_sum_to_zero": "UPDATE postings SET amount = amount + 1 WHERE amount > 0",
    "money_i02_journals_are_balanced": "DELETE FROM postings WHERE amount > 0",
    "money_i03_balances_equal_postings": "UPDATE accounts SET balance = balance + 1 WHERE kind = 'paid'",
    "money_i04_no_balance_below_floor": (
        "ALTER TABLE accounts DROP CONSTRAINT purse_not_below_zero; UPDATE accounts SET balance = -1 WHERE kind = 'paid'"
    ),
    "money_i05_one_money_in_per_charge": (
        "ALTER TABLE money_in DROP CONSTRAINT one_money_in_per_charge; UPDATE money_in SET charge_id = 'same'"
    ),
    "money_i06_paid_orders_have_their_effect": "UPDATE orders SET state = 'pending', paid_at = NULL, paid_from = NULL",
    "money_i07_rewards_follow_purchases": "UPDATE referral_rewards SET amount = amount + 1",
    "money_i08_refunds_within_captured": (
        "INSERT INTO refunds (money_in_id, journal_id, idempotency_key, amount, currency, actor) "
        "SELECT m.id, j.id, 'r', m.booked_amount + 1, 'RUB', 'test' "
        "FROM money_in m JOIN journals j ON j.money_in_id = m.id LIMIT 1"
    ),
    "money_i09_ends_follow_events": "UPDATE subscriptions SET expires_at = expires_at + interval '1 second'",
    "money_i10_nodes_have_the_active": "DELETE FROM key_placements",
    "money_i11_messages_follow_facts": "DELETE FROM outbox WHERE kind = 'purchase'",
    "money_i12_nothing_past_its_deadline": "UPDATE vpn_keys SET pending_since = now() - interval '1 hour'",
    "money_i13_world_equals_outside": "UPDATE money_in SET asset = 'USD', booked_amount = booked_amount + 1",
    "money_i14_purses_follow_rules": "UPDATE journals SET kind = 'compensation' WHERE kind = 'referral_reward'",
    "money_renewals_are_whole": "UPDATE entitlement_events SET source = 'auto_renewal'",
    "money_recurring_work_is_in_time": (
        "INSERT INTO reminder_schedule (subscription_id, plan, began_at, ends_at, due_at) "
        "SELECT id, 'paid', now(), expires_at, now() - interval '3 hours' FROM subscriptions "
        "ON CONFLICT (subscription_id) DO UPDATE SET due_at = excluded.due_at"
    ),
    "money_rule1_events_are_settled": (
        "INSERT INTO provider_events (provider, event_id, body, next_attempt_at, received_at) "
        "VALUES ('test', 'e1', '', now(), now() - interval '2 hours')"
    ),
}
AT_REST = {
    "money_i10_nodes_have_the_active",
    "money_i11_messages_follow_facts",
    "money_i12_nothing_past_its_deadline",
    "money_recurring_work_is_in_time",
    "money_rule1_events_are_settled",
}


async def test_every_view_is_known_and_says_when_it_holds(database: Database) -> None:
    invariants = await database.run(check_invariants)
    assert {invariant.name for invariant in invariants} == set(BREAKS)
    assert {invariant.name for invariant in invariants if invariant.at_rest} == AT_REST


@pytest.mark.parametrize("view", sorted(BREAKS))
async def test_a_violation_is_seen(database: Database, view: str) -> None:
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.buy(charge_id="c1")
    await database.buy(charge_id="c2")
    async with database.connect() as connection:
        await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
        await connection.execute(BREAKS[view])
        found = {invariant.name: invariant for invariant in await check_invariants(connection)}
        assert not found[view].holds
        assert found[view].sample
        await connection.execute("ROLLBACK")
