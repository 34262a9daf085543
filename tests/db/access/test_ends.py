"""An end that equals now has passed, in every statement that asks; and what ends while nobody works ends once."""

from datetime import timedelta

import pytest

from db.access.reminders import queue_reminders
from db.access.subscriptions import expire_page, get_subscription
from db.billing.adjustments import adjust_balance
from db.billing.grants import grant_access, grant_trial
from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.renewal_schedule import claim_renewals
from db.billing.renewals import RenewalResult, renew, set_auto_renew
from db.errors import BusinessError
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.keys.reissue import request_reissue
from db.keys.removal import claim_removals, confirm_removal
from db.money import Money
from db.tx import Tx
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import Database

TICK = timedelta(microseconds=1)
OWNER = Claimer("main/test", 1)
HERE = [NodeConfirmation("first")]
AROUND = pytest.mark.parametrize("is_over", [False, True], ids=["a microsecond before the end", "at the end"])


async def come_to_the_end(tx: Tx, is_over: bool) -> None:
    """For the rest of this transaction it is exactly the end of the one subscription, or a microsecond before."""
    await tx.execute(
        "UPDATE database_identity SET clock_offset = (SELECT expires_at FROM subscriptions) - now() - $1::interval",
        TICK * (not is_over),
    )


@AROUND
async def test_access_is_shown_as_running_until_its_end_and_not_at_it(database: Database, is_over: bool) -> None:
    async def look(tx: Tx) -> bool:
        await come_to_the_end(tx, is_over)
        view = await get_subscription(tx, 1001)
        assert view is not None
        return view.is_running

    await database.add_customer()
    await database.buy()
    assert await database.run(look) is not is_over


@AROUND
async def test_access_is_marked_as_expired_at_its_end_and_not_before(database: Database, is_over: bool) -> None:
    async def expire(tx: Tx) -> int:
        await come_to_the_end(tx, is_over)
        return len((await expire_page(tx, 0, 100)).subscription_ids)

    await database.add_customer()
    await database.buy()
    assert await database.run(expire) == is_over


@AROUND
async def test_a_key_is_put_on_nodes_until_the_end_and_not_at_it(database: Database, is_over: bool) -> None:
    async def claim(tx: Tx) -> int:
        await come_to_the_end(tx, is_over)
        return len(await claim_activations(tx, OWNER, 50, 60.0))

    await database.run(register_node, "first", {"host": "first"}, inbounds=["in"])
    await database.add_customer()
    await database.buy()
    assert await database.run(claim) == (not is_over)


@AROUND
async def test_a_key_is_reissued_until_the_end_and_not_at_it(database: Database, is_over: bool) -> None:
    async def reissue(tx: Tx) -> None:
        await come_to_the_end(tx, is_over)
        if is_over:
            with pytest.raises(BusinessError, match="no subscription that runs"):
                await request_reissue(tx, 1001, actor="o", idempotency_key="r")
        else:
            assert await request_reissue(tx, 1001, actor="o", idempotency_key="r")

    await database.add_customer()
    await database.buy()
    await database.run(reissue)


@AROUND
async def test_a_trial_is_refused_until_the_end_and_given_at_it(database: Database, is_over: bool) -> None:
    async def ask(tx: Tx) -> None:
        await come_to_the_end(tx, is_over)
        if is_over:
            assert (await grant_trial(tx, 1001, actor="front_end:test")).tariff == "basic"
        else:
            with pytest.raises(BusinessError, match="runs"):
                await grant_trial(tx, 1001, actor="front_end:test")

    await database.add_customer()
    await database.run(grant_access, 1001, "basic", timedelta(days=1), idempotency_key="g", actor="o")
    await database.run(ask)


@AROUND
@pytest.mark.parametrize("funds", [0, 14900])
async def test_a_renewal_at_the_end_is_paid_if_there_is_money_else_missed_for_good(
    database: Database, is_over: bool, funds: int
) -> None:
    async def try_it(tx: Tx) -> RenewalResult:
        await come_to_the_end(tx, is_over)
        [claim] = await claim_renewals(tx, OWNER, 50, 60.0)
        outcome = await renew(tx, claim)
        if outcome.expires_at is not None:
            assert outcome.expires_at == claim.period_start + timedelta(days=30)
        return outcome.result

    await database.add_customer()
    await database.buy()
    await database.run(set_auto_renew, 1001, True, actor="o")
    if funds:
        await database.run(adjust_balance, 1001, Money(funds), reason="x", actor="o", idempotency_key="a")
    lacking = RenewalResult.MISSED if is_over else RenewalResult.LACKS_FUNDS
    assert await database.run(try_it) is (RenewalResult.RENEWED if funds else lacking)


@AROUND
async def test_a_purchase_at_the_end_adds_to_it_as_one_before_it_does(database: Database, is_over: bool) -> None:
    async def buy(tx: Tx) -> timedelta:
        view = await get_subscription(tx, 1001)
        assert view is not None
        await come_to_the_end(tx, is_over)
        order = await open_order(tx, 1001, "basic", 30, idempotency_key="o")
        outcome = await finalize_purchase(tx, FinalizePurchase("test", "c2", order.quote.amount, order.id))
        assert outcome.expires_at is not None
        return outcome.expires_at - view.expires_at

    await database.add_customer()
    await database.buy()
    assert await database.run(buy) == timedelta(days=30)


async def test_the_last_reminder_is_not_sent_at_the_end_that_it_is_about(database: Database) -> None:
    async def remind(tx: Tx) -> int:
        await come_to_the_end(tx, is_over=True)
        return (await queue_reminders(tx)).queued

    await database.add_customer()
    await database.buy()
    assert await database.run(remind) == 0


async def on_a_trial(database: Database) -> Claimer:
    """A customer whose trial works, before everybody stops working."""
    await database.run(register_node, "first", {"host": "first"}, inbounds=["in"])
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    owner = await database.run(enlist_claimer, "main/activation")
    [claim] = await database.run(claim_activations, owner, 50, 60.0)
    await database.run(confirm_activation, claim, HERE)
    return owner


async def told(database: Database, kind: str) -> int:
    count: int = await database.fetchval("SELECT count(*) FROM outbox WHERE kind = $1", kind)
    return count


async def test_a_trial_that_ended_while_nobody_worked_ends_once_and_for_good(database: Database) -> None:
    owner = await on_a_trial(database)
    await database.move_clock(days=10)
    for _ in range(2):
        await database.run(queue_reminders)
        await database.run(expire_page, 0, 100)
    [removal] = await database.run(claim_removals, owner, 50, 60.0)
    await database.run(confirm_removal, removal, HERE)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.state, view.is_running, await told(database, "access_expired")) == ("expired", False, 1)
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind LIKE 'reminder%'") == 0
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removed"
    with pytest.raises(BusinessError, match="one per customer"):
        await database.run(grant_trial, 1001, actor="front_end:test")
    assert await database.count("money_i10_nodes_have_the_active") == 0


async def test_who_buys_after_an_unmarked_end_of_a_trial_pays_from_now_and_keeps_the_key(
    database: Database,
) -> None:
    owner = await on_a_trial(database)
    key_id = await database.fetchval("SELECT key_id FROM vpn_keys")
    await database.move_clock(days=10)
    now = await database.fetchval("SELECT atlas_now()")
    bought = await database.buy()
    assert bought.expires_at is not None
    assert timedelta(0) <= bought.expires_at - now - timedelta(days=30) < timedelta(minutes=5)
    assert (await database.run(expire_page, 0, 100)).subscription_ids == ()
    assert await database.run(claim_removals, owner, 50, 60.0) == []
    [claim] = await database.run(claim_activations, owner, 50, 60.0)
    assert (claim.key_id, claim.expires_at) == (key_id, bought.expires_at)
    await database.run(confirm_activation, claim, HERE)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert (view.source, view.is_running, await told(database, "access_expired")) == ("payment", True, 0)
    assert await database.count("money_i10_nodes_have_the_active") == 0


async def test_who_buys_while_the_ended_trials_key_is_being_removed_gets_it_back(database: Database) -> None:
    owner = await on_a_trial(database)
    await database.move_clock(days=10)
    await database.run(expire_page, 0, 100)
    [removal] = await database.run(claim_removals, owner, 50, 60.0)
    await database.buy()
    await database.run(confirm_removal, removal, HERE)
    [claim] = await database.run(claim_activations, owner, 50, 60.0)
    assert claim.key_id == removal.key_id
    await database.run(confirm_activation, claim, HERE)
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "active"
    assert await database.count("money_i10_nodes_have_the_active") == 0
