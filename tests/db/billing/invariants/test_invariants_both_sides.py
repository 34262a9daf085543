"""The invariants hold from both sides: a fact without its effect is seen, and an effect without its fact."""

from datetime import timedelta

from db.access.reminders import queue_reminders
from db.access.subscriptions import expire_page
from db.billing.adjustments import adjust_balance
from db.billing.grants import grant_access, grant_trial
from db.billing.invariants import check_invariant
from db.billing.invoices import open_invoice, reserve_invoice
from db.billing.orders import open_order
from db.billing.purchases import record_manual_topup
from db.billing.referrals import referral_percent
from db.billing.renewal_schedule import claim_renewals
from db.billing.renewals import renew, set_auto_renew
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.keys.reissue import request_reissue
from db.keys.removal import claim_removals, confirm_removal
from db.money import Money
from db.work.claims import enlist_claimer
from tests.db.database import Database

HERE = [NodeConfirmation("first", "boot")]

ORDERS = "money_i06_paid_orders_have_their_effect"
REWARDS = "money_i07_rewards_follow_purchases"
NODES = "money_i10_nodes_have_the_active"
MESSAGES = "money_i11_messages_follow_facts"
DEADLINES = "money_i12_nothing_past_its_deadline"

BREAKS = [
    (ORDERS, "DELETE FROM journals WHERE kind = 'topup'"),
    (ORDERS, "UPDATE journals SET order_id = NULL WHERE kind = 'purchase'"),
    (ORDERS, "UPDATE journals SET order_id = NULL WHERE kind = 'balance_purchase'"),
    (ORDERS, "UPDATE journals SET order_id = NULL WHERE kind = 'topup'"),
    (ORDERS, "UPDATE entitlement_events SET order_id = NULL WHERE source = 'payment'"),
    (ORDERS, "UPDATE entitlement_events SET order_id = NULL WHERE source = 'balance'"),
    (ORDERS, "UPDATE entitlement_events SET period = period + interval '1 day' WHERE source = 'payment'"),
    (ORDERS, "UPDATE entitlement_events SET tariff = 'plus' WHERE source = 'balance'"),
    (ORDERS, "UPDATE entitlement_events SET money_in_id = NULL WHERE source = 'payment'"),
    (
        ORDERS,
        "UPDATE postings SET amount = amount * 2 WHERE journal_id = (SELECT min(id) FROM journals WHERE kind = 'purchase')",
    ),
    (
        ORDERS,
        "UPDATE postings SET amount = amount * 2 WHERE journal_id = (SELECT id FROM journals WHERE kind = 'topup')",
    ),
    (
        ORDERS,
        "INSERT INTO journals (kind, idempotency_key, order_id) "
        "SELECT 'balance_purchase', 'second', order_id FROM journals WHERE kind = 'purchase' LIMIT 1",
    ),
    (REWARDS, "DELETE FROM referral_rewards WHERE id = (SELECT min(id) FROM referral_rewards)"),
    (
        REWARDS,
        "WITH forgotten AS (DELETE FROM referral_rewards RETURNING journal_id) "
        "DELETE FROM journals WHERE id IN (SELECT journal_id FROM forgotten)",
    ),
    (REWARDS, "UPDATE referral_rewards SET friends = 30"),
    (REWARDS, "UPDATE referral_rewards SET percent = 25"),
    (REWARDS, "UPDATE referral_rewards SET friends = 9"),
    (NODES, "DELETE FROM vpn_keys WHERE wanted = 'present'"),
    (NODES, "UPDATE vpn_keys SET wanted = 'absent', activation_status = 'removed' WHERE wanted = 'present'"),
    (NODES, "UPDATE vpn_keys SET activation_status = 'failed' WHERE wanted = 'present'"),
    (NODES, "INSERT INTO vpn_nodes (name, endpoint, inbounds) VALUES ('second', '{}', '{in}')"),
    (
        NODES,
        "INSERT INTO key_sightings (node_id, key_id, first_pass, last_pass, generation, first_seen_at) "
        "SELECT id, 'stranger', 1, 9, 1, atlas_now() - interval '2 hours' FROM vpn_nodes",
    ),
    *(
        (MESSAGES, f"DELETE FROM outbox WHERE id = (SELECT max(id) FROM outbox WHERE kind = '{kind}')")
        for kind in (
            "access_granted",
            "access_expired",
            "key_active",
            "key_reissued",
            "renewal_succeeded",
            "renewal_lacks_funds",
            "balance_adjusted",
        )
    ),
    *(
        (
            MESSAGES,
            f"UPDATE outbox SET subject = '{subject}' WHERE id = (SELECT max(id) FROM outbox WHERE kind = '{kind}')",
        )
        for kind, subject in (
            ("access_granted", "event:999"),
            ("access_expired", "subscription:1:1"),
            ("key_active", "key:999"),
            ("key_reissued", "key:1"),
            ("renewal_succeeded", "subscription:999:1"),
            ("renewal_lacks_funds", "nonsense"),
            ("reminder_trial_48h_in", "subscription:1:77"),
        )
    ),
    (
        MESSAGES,
        "UPDATE outbox SET customer_id = customer_id + 1 WHERE id = (SELECT max(id) FROM outbox WHERE kind = 'purchase')",
    ),
    (
        DEADLINES,
        "UPDATE invoices SET next_attempt_at = atlas_now() - interval '2 hours', claimed_by = 'x', "
        "claimed_incarnation = 1, claim_until = atlas_now() - interval '2 hours'",
    ),
    (DEADLINES, "UPDATE invoices SET created_at = atlas_now() - interval '4 days'"),
    (
        DEADLINES,
        "UPDATE reissues SET finished_at = NULL, result = NULL, requested_at = atlas_now() - interval '1 day'; "
        "UPDATE vpn_keys SET pending_since = atlas_now() - interval '1 day'",
    ),
]


async def settle_keys(database: Database) -> None:
    """The node does what is wanted of it."""
    owner = await database.run(enlist_claimer, "main/keys")
    for claimed in await database.run(claim_activations, owner, 50, 60.0):
        await database.run(confirm_activation, claimed, HERE)
    for claimed in await database.run(claim_removals, owner, 50, 60.0):
        await database.run(confirm_removal, claimed, HERE)


async def renew_all(database: Database) -> None:
    """Whatever renewal is due is tried."""
    owner = await database.run(enlist_claimer, "main/auto_renewal")
    for claimed in await database.run(claim_renewals, owner, 50, 60.0):
        await database.run(renew, claimed)


async def everything(database: Database) -> None:
    """A month in which each kind of fact comes about, up to rest."""
    await database.run(register_node, "first", {"host": "vpn.example"}, inbounds=["in"])
    for telegram_id, funds in ((1003, 14900), (1004, 0)):
        await database.add_customer(telegram_id)
        await database.buy(telegram_id, charge_id=f"c{telegram_id}")
        await database.run(set_auto_renew, telegram_id, True, actor="o")
        if funds:
            await database.run(adjust_balance, telegram_id, Money(funds), reason="x", actor="o", idempotency_key="a")
    await settle_keys(database)
    await database.move_clock(days=29.9)
    await renew_all(database)
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.buy(charge_id="c1")
    await database.run(record_manual_topup, 1001, "manual", "t1", Money(20_000))
    await database.buy_from_balance(1001, key="b")
    await database.add_customer(1005)
    await database.run(grant_trial, 1005, actor="front_end:test")
    await database.run(grant_access, 1003, "basic", timedelta(days=1), idempotency_key="g", actor="o")
    await database.run(adjust_balance, 1005, Money(100), reason="x", actor="o", idempotency_key="b")
    await settle_keys(database)
    await database.move_clock(days=32)
    await database.run(queue_reminders)
    await database.run(request_reissue, 1001, actor="o", idempotency_key="r")
    await settle_keys(database)
    await database.move_clock(days=33)
    await database.run(queue_reminders)
    await renew_all(database)
    await database.run(expire_page, 0, 100)
    await settle_keys(database)
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="i")
    invoice = await database.run(reserve_invoice, order.id, "cryptobot", ["RUB"])
    await database.run(open_invoice, invoice, "inv", "https://pay.example/inv", watched=True)
    async with database.connect() as connection:
        await connection.execute("UPDATE outbox SET state = 'sent', settled_at = atlas_now()")
        # What was told long before the week that is compared.
        await connection.execute("DELETE FROM outbox WHERE created_at < atlas_now() - interval '8 days'")


async def test_a_month_of_everything_is_in_order_and_a_fact_or_effect_alone_is_seen(
    database: Database,
) -> None:
    await everything(database)
    assert await database.broken_invariants(at_rest=True) == []
    async with database.connect() as connection:
        for view, change in BREAKS:
            await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
            assert (await connection.execute(change)) not in ("UPDATE 0", "DELETE 0", "INSERT 0 0"), change
            found = await check_invariant(connection, view, at_rest=True)
            assert not found.holds, (view, change)
            await connection.execute("ROLLBACK")


async def test_a_key_that_no_node_took_is_no_violation_while_an_open_case_says_so(database: Database) -> None:
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    async with database.connect() as connection:
        await connection.execute("UPDATE vpn_keys SET activation_status = 'failed', given_up_at = atlas_now()")
        assert not (await check_invariant(connection, NODES, at_rest=True)).holds
        await connection.execute(
            "INSERT INTO cases (kind, subject, key_id) SELECT 'activation_failed', 'key', id FROM vpn_keys"
        )
        assert (await check_invariant(connection, NODES, at_rest=True)).holds


async def test_the_views_know_the_tiers_that_rewards_are_paid_by(database: Database) -> None:
    async with database.connect() as connection:
        for friends in range(1, 61):
            assert await connection.fetchval("SELECT referral_percent($1)", friends) == referral_percent(friends)
