"""An event is stored as it came, booked once, and tried again until it is booked or a human is told."""

from __future__ import annotations

from decimal import Decimal

import asyncpg
import pytest

from db.billing.invoices import CheckoutVerdict
from db.billing.orders import Quote, open_order
from db.billing.payment_facts import Captured, Checkout, Contact, FinalizePurchase, NothingToBook, Reversed
from db.billing.provider_events import (
    StoredEvent,
    claim_events,
    fail_event,
    postpone_event,
    prune_events,
    settle_event,
    store_event,
)
from db.errors import ChargeConflict
from db.money import Money
from db.tx import Tx
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import Database

BODY = b'{"id": "evt_1"}'
NOBODY = Contact(1001, "ru")


async def stored(database: Database, event_id: str = "evt_1") -> StoredEvent:
    return await database.run(store_event, "stripe", event_id, BODY)


async def owner_of(database: Database) -> Claimer:
    return await database.run(enlist_claimer, "main/payment_watcher")


async def order_of(database: Database, key: str = "click") -> int:
    await database.add_customer()
    return (await database.run(open_order, 1001, "basic", 30, idempotency_key=key)).id


def paid(order_id: int, charge: str = "pi_1", amount: Money | None = None) -> Captured:
    return Captured(FinalizePurchase("stripe", charge, amount or Money(14900), order_id, actor="stripe"))


async def test_an_event_is_kept_once(database: Database) -> None:
    first, again = await stored(database), await stored(database)
    assert (first.is_new, again.is_new, again.id, again.state) == (True, False, first.id, "received")
    assert await database.fetchval("SELECT array_agg(body) FROM provider_events") == [BODY]


async def test_a_known_name_with_another_body_is_another_event_and_kept_once_too(database: Database) -> None:
    name = "evt_" + "1" * 196  # as long as a name may be
    first = await stored(database, name)
    settled = await database.run(settle_event, first, NothingToBook("nothing"))
    others = [await database.run(store_event, "stripe", name, b"another body") for _ in range(2)]
    assert settled.is_settled
    assert [other.is_new for other in others] == [True, False]
    assert {other.state for other in others} == {"received"}
    assert await database.fetchval("SELECT array_agg(body ORDER BY id) FROM provider_events") == [BODY, b"another body"]


async def test_a_replay_gets_the_first_outcome(database: Database) -> None:
    order = await order_of(database)
    event = await stored(database)
    settled = await database.run(settle_event, event, paid(order))
    assert (settled.state, settled.outcome["result"]) == ("processed", "entitlement")
    replay = await stored(database)
    assert replay.is_settled
    assert replay.outcome == settled.outcome
    assert (await database.run(settle_event, event, paid(order, "pi_other"))).outcome == settled.outcome
    assert await database.count("money_in") == 1


async def test_booking_that_fails_leaves_the_event_to_be_booked(database: Database) -> None:
    order = await order_of(database)
    await database.run(settle_event, await stored(database), paid(order))
    second = await stored(database, "evt_2")
    with pytest.raises(ChargeConflict):
        await database.run(settle_event, second, paid(order, amount=Money(1)))
    assert await database.fetchval("SELECT state FROM provider_events WHERE event_id = 'evt_2'") == "received"
    failed = await database.run(fail_event, second, "recorded before with another amount")
    assert failed.state == "failed"
    assert await database.fetchval("SELECT kind FROM cases") == "provider_event"
    assert not [found for found in await database.broken_invariants(at_rest=True) if "provider_event" in found]


async def test_the_watcher_leaves_an_event_alone_until_its_receiver_must_have_died(database: Database) -> None:
    owner = await owner_of(database)
    await stored(database)
    assert await database.run(claim_events, owner, 10, 60.0) == []
    await database.move_clock(seconds=11)
    [claimed] = await database.run(claim_events, owner, 10, 60.0)
    assert (claimed.body, claimed.provider) == (BODY, "stripe")
    assert await database.run(claim_events, owner, 10, 60.0) == []


async def test_a_lost_claim_books_nothing(database: Database) -> None:
    order = await order_of(database)
    owner = await owner_of(database)
    await stored(database)
    await database.move_clock(seconds=11)
    [lost] = await database.run(claim_events, owner, 10, 60.0)
    successor = await owner_of(database)
    [taken] = await database.run(claim_events, successor, 10, 60.0)
    assert not (await database.run(settle_event, lost, paid(order))).is_settled
    assert not await database.run(postpone_event, lost, "late", counts=True)
    assert not (await database.run(fail_event, lost, "late")).is_settled
    assert (await database.run(settle_event, taken, paid(order))).state == "processed"
    assert await database.count("money_in") == 1


async def test_a_postponed_event_comes_back_ever_later_and_an_outage_counts_no_attempt(database: Database) -> None:
    owner = await owner_of(database)
    await stored(database)
    await database.move_clock(seconds=11)
    for attempt in range(3):
        [claimed] = await database.run(claim_events, owner, 10, 60.0)
        assert claimed.attempts == attempt
        assert await database.run(postpone_event, claimed, "500", counts=True)
        assert await database.run(claim_events, owner, 10, 60.0) == []
        await database.move_clock(minutes=attempt + 2)
    [claimed] = await database.run(claim_events, owner, 10, 60.0)
    assert await database.run(postpone_event, claimed, "away", counts=False)
    await database.move_clock(hours=1)
    [claimed] = await database.run(claim_events, owner, 10, 60.0)
    assert claimed.attempts == 3


async def test_a_contact_makes_a_customer_who_can_be_reached(database: Database) -> None:
    await database.run(settle_event, await stored(database), NothingToBook("a message", NOBODY))
    await database.run(_block)
    await database.run(settle_event, await stored(database, "evt_2"), NothingToBook("a message", NOBODY))
    assert await database.fetchval("SELECT is_reachable FROM customers WHERE telegram_id = 1001") is True


async def _block(tx: Tx) -> None:
    await tx.execute("UPDATE customers SET is_reachable = false")


async def test_money_that_goes_back_without_us_is_one_case_however_often_it_is_told(database: Database) -> None:
    order = await order_of(database)
    await database.run(settle_event, await stored(database), paid(order))
    for number in (2, 3):
        event = await stored(database, f"evt_{number}")
        await database.run(settle_event, event, Reversed("pi_1", "refund", "re_1", "149.00 RUB"))
    assert await database.fetchval("SELECT string_agg(kind, ',') FROM cases") == "provider_refund"


@pytest.mark.parametrize(
    ("telegram_id", "amount", "expected"),
    [
        (1001, Money(115, "XTR"), CheckoutVerdict.FINE),
        (1001, Money(116, "XTR"), CheckoutVerdict.AMOUNT),
        (1001, Money(115), CheckoutVerdict.AMOUNT),
        (1001, None, CheckoutVerdict.AMOUNT),
        (1002, Money(115, "XTR"), CheckoutVerdict.NOT_YOURS),
    ],
)
async def test_a_checkout_is_fine_for_the_customer_amount_and_asset_that_were_quoted(
    database: Database, telegram_id: int, amount: Money | None, expected: CheckoutVerdict
) -> None:
    await database.add_customer()
    quote = Quote(Money(115, "XTR"), Decimal("1.3"))
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="c", quote=quote)
    checkout = Checkout(order.id, telegram_id, amount, Contact(telegram_id, "ru"))
    settled = await database.run(settle_event, await stored(database), checkout)
    assert settled.outcome["verdict"] == expected.value


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE orders SET state = 'cancelled'", CheckoutVerdict.ENDED),
        ("UPDATE orders SET expires_at = created_at", CheckoutVerdict.ENDED),
        ("UPDATE tariffs SET is_sold = false WHERE code = 'basic'", CheckoutVerdict.NOT_SOLD),
        ("DELETE FROM prices WHERE tariff = 'basic' AND days = 30", CheckoutVerdict.NOT_SOLD),
        (
            "INSERT INTO vpn_nodes (name, endpoint, inbounds, accepts_keys) VALUES ('a', '{}', '{in}', false)",
            CheckoutVerdict.SOLD_OUT,
        ),
        ("INSERT INTO vpn_nodes (name, endpoint, inbounds) VALUES ('a', '{}', '{in}')", CheckoutVerdict.FINE),
    ],
)
async def test_a_checkout_looks_at_the_order_and_the_stock(
    database: Database, change: str, expected: CheckoutVerdict
) -> None:
    order = await order_of(database)
    async with database.connect() as connection:
        await connection.execute(change)
    checkout = Checkout(order, 1001, Money(14900), NOBODY)
    settled = await database.run(settle_event, await stored(database), checkout)
    assert settled.outcome["verdict"] == expected.value


async def test_a_checkout_of_a_paid_or_an_unknown_order_is_refused(database: Database) -> None:
    order = await order_of(database)
    await database.run(settle_event, await stored(database), paid(order))
    for number, (named, expected) in enumerate(
        ((order, CheckoutVerdict.PAID), (999, CheckoutVerdict.UNKNOWN_ORDER), (None, CheckoutVerdict.UNKNOWN_ORDER))
    ):
        event = await stored(database, f"query-{number}")
        settled = await database.run(settle_event, event, Checkout(named, 1001, Money(14900), NOBODY))
        assert settled.outcome["verdict"] == expected.value


async def test_only_events_that_meant_nothing_are_pruned_and_only_when_they_are_old(database: Database) -> None:
    order = await order_of(database)
    await database.run(settle_event, await stored(database), paid(order))
    await database.run(settle_event, await stored(database, "evt_2"), NothingToBook("a message", NOBODY))
    assert await database.run(prune_events) == 0
    await database.move_clock(days=8)
    assert await database.run(prune_events) == 1
    assert await database.fetchval("SELECT event_id FROM provider_events") == "evt_1"
    await database.move_clock(days=0)


async def test_what_came_is_final(database: Database) -> None:
    await stored(database)
    for change in ("UPDATE provider_events SET body = ''", "DELETE FROM provider_events", "TRUNCATE provider_events"):
        async with database.connect() as connection:
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute(change)
