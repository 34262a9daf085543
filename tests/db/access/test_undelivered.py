"""Time that was not delivered is given back once: a new access that came late, and an outage that hit everybody."""

from datetime import datetime, timedelta

import pytest
import trio

from db.access.entitlements import Entitlement
from db.access.subscriptions import mark_revoked
from db.access.undelivered import open_prolongation, prolong_page
from db.billing.compensation import compensate
from db.billing.grants import grant_access, grant_trial
from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.refunds import refund_charge
from db.errors import BusinessError
from db.keys.activation import ActivationResult, claim_activations, confirm_activation
from db.keys.claims import KeyClaim, NodeConfirmation
from db.keys.nodes import register_node
from db.money import Money
from db.tx import Tx
from db.work.claims import Claimer
from tests.db.database import Database

OWNER = Claimer("main/test", 1)
DAY = timedelta(days=1)


async def end_of(database: Database, telegram_id: int = 1001) -> datetime:
    end: datetime = await database.fetchval(
        "SELECT expires_at FROM subscriptions s JOIN customers c ON c.id = s.customer_id WHERE telegram_id = $1",
        telegram_id,
    )
    return end


async def claim(database: Database) -> list[KeyClaim]:
    return await database.run(claim_activations, OWNER, 50, 60.0)


async def deliver(database: Database, *nodes: str) -> None:
    """Every pending key is confirmed by these nodes, until nothing is pending there."""
    confirmed = [NodeConfirmation(node) for node in nodes or ("first",)]
    while claims := await claim(database):
        for each in claims:
            await database.run(confirm_activation, each, confirmed)


async def bought(database: Database) -> datetime:
    """A node, and a customer who has just bought; the end."""
    await database.run(register_node, "first", {"host": "first"}, inbounds=["in"])
    await database.add_customer()
    await database.buy()
    return await end_of(database)


async def test_a_new_access_that_came_late_ends_as_much_later_and_the_node_hears_it(database: Database) -> None:
    end = await bought(database)
    await database.move_clock(hours=3)
    await deliver(database)
    waited = await end_of(database) - end
    assert timedelta(hours=3) < waited < timedelta(hours=3, minutes=5)
    assert await database.fetchval("SELECT applied_expires_at FROM key_placements") == await end_of(database)
    assert await database.fetchval("SELECT period FROM entitlement_events WHERE kind = 'delay'") == waited
    assert await database.fetchval("SELECT actor FROM audit WHERE action = 'delay'") == "activation"


@pytest.mark.parametrize("wait", [0, 4])
async def test_what_came_in_time_ends_when_it_was_said_to(database: Database, wait: int) -> None:
    end = await bought(database)
    await database.move_clock(minutes=wait)
    await deliver(database)
    await database.move_clock(hours=9)
    await database.buy(charge_id="second")
    await database.move_clock(hours=12)
    await deliver(database)
    assert await end_of(database) == end + 30 * DAY, "later purchases extend what is delivered already"


async def test_the_first_node_that_has_it_counts_and_it_counts_once(database: Database) -> None:
    await database.run(register_node, "second", {"host": "second"}, inbounds=["in"])
    end = await bought(database)
    [claimed] = await claim(database)
    await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    await database.move_clock(hours=3)
    await deliver(database, "first", "second")
    assert await end_of(database) == end
    await database.run(mark_revoked, 1001, actor="o")
    await database.buy(charge_id="new")
    begins_again = await end_of(database)
    await database.move_clock(hours=5)
    await deliver(database, "first", "second")
    assert timedelta(hours=2) <= await end_of(database) - begins_again < timedelta(hours=2, minutes=5), "another access"


async def test_a_run_that_was_never_delivered_does_not_lengthen_the_next_one(database: Database) -> None:
    await bought(database)
    await database.move_clock(days=40)
    await database.buy(charge_id="second")
    end = await end_of(database)
    await deliver(database)
    assert await end_of(database) == end


async def test_a_trial_that_came_late_is_no_purchase(database: Database) -> None:
    await database.run(register_node, "first", {"host": "first"}, inbounds=["in"])
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    end = await end_of(database)
    await database.move_clock(hours=1)
    await deliver(database)
    assert await end_of(database) == end


async def test_what_was_refunded_in_part_or_compensated_is_not_given_back_as_time_too(database: Database) -> None:
    await bought(database)
    claims = await claim(database)
    await database.move_clock(hours=1)
    await database.run(refund_charge, "test", "charge-1", amount=Money(100), actor="o", idempotency_key="r")
    end = await end_of(database)
    await database.run(confirm_activation, claims[0], [NodeConfirmation("first")])
    assert await end_of(database) == end
    number = await database.fetchval("SELECT id FROM subscriptions")
    await database.run(compensate, number, reason="x", actor="o")
    assert await database.fetchval("SELECT count(*) FROM entitlement_events WHERE kind = 'delay'") == 0


async def test_a_late_delivery_that_a_renewal_overtook_is_given_back_all_the_same(database: Database) -> None:
    end = await bought(database)
    [claimed] = await claim(database)
    await database.move_clock(hours=1)
    await database.buy(charge_id="second")
    outcome = await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    assert outcome.result is ActivationResult.SUPERSEDED
    assert await end_of(database) > end + 30 * DAY + timedelta(hours=1)


async def test_a_late_delivery_and_a_purchase_at_once_do_not_stop_each_other(database: Database) -> None:
    end = await bought(database)
    claims = await claim(database)
    await database.move_clock(hours=1)
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="o")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.run, confirm_activation, claims[0], [NodeConfirmation("first")])
        nursery.start_soon(
            database.run, finalize_purchase, FinalizePurchase("test", "c2", order.quote.amount, order.id)
        )
    assert timedelta(hours=1) < await end_of(database) - end - 30 * DAY < timedelta(hours=1, minutes=5)


# ---- an outage ----


async def prolong(database: Database, began: float, ended: float, node: str | None = None, limit: int = 2) -> int:
    """Make good what was down from `began` to `ended` hours ago; how many got something."""

    async def opened(tx: Tx) -> int:
        now = await tx.fetchval("SELECT date_trunc('minute', atlas_now())")
        since, until = (now - timedelta(hours=hours) for hours in (began, ended))
        outage = await open_prolongation(tx, since, until, node=node, reason="the line was cut", actor="o")
        total = 0
        while count := await prolong_page(tx, outage, actor="o", limit=limit):
            total += count
        return total

    return await database.run(opened)


async def gift(database: Database, telegram_id: int, hours: float) -> Entitlement:
    await database.add_customer(telegram_id)
    period = timedelta(hours=hours)
    return await database.run(grant_access, telegram_id, "basic", period, idempotency_key=f"{telegram_id}", actor="o")


async def test_an_outage_is_made_good_for_everybody_as_long_as_it_hit_them_and_once(database: Database) -> None:
    await database.move_clock(hours=-20)
    whole, _, revoked = [await gift(database, telegram_id, hours) for telegram_id, hours in ((1, 48), (2, 12), (3, 48))]
    await database.run(mark_revoked, 3, actor="o")
    await database.move_clock(hours=-9)
    late = await gift(database, 4, 48)
    await database.move_clock(hours=0)
    after = await gift(database, 5, 48)
    assert await prolong(database, 10, 6) == 3
    assert await prolong(database, 10, 6) == 0, "the same outage again gives nobody anything"
    assert await end_of(database, 1) == whole.new_end + timedelta(hours=4)
    minute = timedelta(minutes=2)
    assert abs(await end_of(database, 4) - late.new_end - timedelta(hours=3)) < minute, "it had no access before"
    now = await database.fetchval("SELECT atlas_now()")
    assert abs(await end_of(database, 2) - now - timedelta(hours=2)) < minute, "its last two hours, from now on"
    assert await end_of(database, 5) == after.new_end
    assert await end_of(database, 3) < revoked.new_end
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'access_granted'") == 5 + 3


async def test_the_same_hour_is_made_good_once_whatever_the_window(database: Database) -> None:
    await database.move_clock(hours=-20)
    given = await gift(database, 1, 48)
    await database.move_clock(hours=0)
    await prolong(database, 10, 6)
    for began, ended in ((11, 9), (7, 5), (12, 3), (9, 8)):
        with pytest.raises(BusinessError, match=r"prolongation 1 of all nodes has made good .* which overlaps"):
            await prolong(database, began, ended)
    assert await prolong(database, 6, 5) == 1
    assert await end_of(database, 1) == given.new_end + timedelta(hours=5)


async def test_a_window_that_is_none_is_refused(database: Database) -> None:
    for began, ended in ((5, 5), (5, 6), (2, -1)):
        with pytest.raises(BusinessError, match="begins before it ends, and has ended"):
            await prolong(database, began, ended)
    with pytest.raises(BusinessError, match="longer than 31 days"):
        await prolong(database, 24 * 31 + 2, 1)
    with pytest.raises(BusinessError, match="no node 'mars'"):
        await prolong(database, 5, 4, "mars")
    assert await database.count("prolongations") == 0


async def test_an_outage_of_a_node_is_made_good_for_those_who_had_a_key_there(database: Database) -> None:
    await database.move_clock(hours=-20)
    end = await bought(database)
    await deliver(database)
    other = await gift(database, 2, 48)
    await database.move_clock(hours=0)
    assert await prolong(database, 10, 6, "first") == 1
    assert await end_of(database) == end + timedelta(hours=4)
    assert await end_of(database, 2) == other.new_end


async def test_two_who_make_the_same_outage_good_at_once_give_it_once(database: Database) -> None:
    await database.move_clock(hours=-20)
    ends = [(await gift(database, number, 48)).new_end for number in range(1, 6)]
    await database.move_clock(hours=0)
    given: list[int] = []

    async def one() -> None:
        given.append(await prolong(database, 10, 6))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    assert sorted(given) == [0, 5]
    assert [await end_of(database, number) for number in range(1, 6)] == [end + timedelta(hours=4) for end in ends]
