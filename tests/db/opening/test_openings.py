"""Openings: what a customer brings from another system is booked once, against `opening`, and goes on like any other."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs
import pytest

from db.access.subscriptions import get_subscription
from db.auditor.audit import audit
from db.billing.grants import grant_trial
from db.billing.ledger import Purses, purses
from db.billing.referrals import referral_standing, withdrawable
from db.billing.refunds import refund_charge
from db.billing.renewal_schedule import claim_renewals
from db.billing.renewals import renew
from db.billing.withdrawals import request_withdrawal
from db.errors import BusinessError, UnknownCustomer, UnknownTariff
from db.money import Money
from db.opening.openings import OpeningAccess, OpeningBalance, note_used_trial, open_access, open_balance
from db.settings import TrialSettings
from db.work.claims import enlist_claimer
from tests.db.database import SEAL, Database

FULL = OpeningBalance(Money(30_000), Money(2_000), Money(60_000), Money(-500))
AGO = timedelta(days=300)


async def _open(database: Database, telegram_id: int, brought: OpeningBalance, key: str = "old:1") -> int | None:
    return await database.run(open_balance, telegram_id, brought, idempotency_key=key, actor="import")


async def _bring(
    database: Database,
    telegram_id: int = 1001,
    *,
    key: str = "old:1",
    ends_in: timedelta = timedelta(days=10),
    **facts: Any,
) -> OpeningAccess:
    now = await database.fetchval("SELECT atlas_now()")
    plain: dict[str, Any] = {"tariff": "basic", "ends_at": now + ends_in, "uuid": uuid4(), "source": "payment"}
    wanted = OpeningAccess(**(plain | facts))
    await database.run(open_access, telegram_id, wanted, idempotency_key=key, actor="import")
    return wanted


async def _now(database: Database) -> datetime:
    now: datetime = await database.fetchval("SELECT atlas_now()")
    return now


async def _clean(database: Database) -> None:
    assert [str(finding) for finding in (await database.run(audit)).findings] == []


async def _purses(database: Database, telegram_id: int) -> Purses:
    return await database.run(
        purses, await database.fetchval("SELECT id FROM customers WHERE telegram_id = $1", telegram_id)
    )


async def test_an_opening_fills_each_purse_against_opening_and_never_the_world(database: Database) -> None:
    await database.add_customer()
    journal = await _open(database, 1001, FULL)
    assert await _open(database, 1001, FULL) == journal
    assert await _purses(database, 1001) == Purses(Money(30_000), Money(2_000), Money(60_000), Money(-500))
    sums = "SELECT coalesce(sum(amount), 0)::bigint FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.kind = $1"
    assert await database.fetchval(sums, "opening") == -91_500
    assert await database.fetchval(sums, "world") == 0
    assert await database.count("journals") == 1
    assert await database.count("outbox") == 0, "nobody is told"
    await _clean(database)


async def test_earned_money_that_was_brought_along_can_be_withdrawn_at_once_and_no_other(database: Database) -> None:
    customer = await database.add_customer()
    await _open(database, 1001, FULL)
    can = await database.run(withdrawable, customer.id)
    assert (can.amount, can.unmatured) == (Money(60_000), Money(0))
    await database.run(
        request_withdrawal,
        1001,
        Money(60_000),
        destination="card 4000",
        actor="front_end:test",
        seal=SEAL,
        idempotency_key="all",
    )
    await _clean(database)


async def test_a_friend_who_paid_elsewhere_counts_and_what_was_rewarded_earns_nothing(
    database: Database,
) -> None:
    referrer = await database.add_customer(500)
    await database.add_customer(1001, referrer=500)
    since = await _now(database) - AGO
    spent = OpeningBalance(Money(30_000), rewarded_paid=Money(20_000), spent_paid=Money(90_000), paid_since=since)
    await _open(database, 1001, spent)
    assert (await database.run(referral_standing, referrer.id)).friends == 1
    await database.buy_from_balance(1001, key="first")
    assert (await _purses(database, 500)).earned == Money(0), "14 900 of the 20 000 that were rewarded there"
    await database.buy_from_balance(1001, key="second")
    assert (await _purses(database, 500)).earned == Money((29_800 - 20_000) * 10 // 100)
    await _clean(database)


async def test_a_refund_here_leaves_a_friend_paying_who_paid_elsewhere(database: Database) -> None:
    customer = await database.add_customer()
    since = await _now(database) - AGO
    assert await _open(database, 1001, OpeningBalance(spent_paid=Money(1), paid_since=since)) is None
    await database.buy(charge_id="here")
    await database.run(refund_charge, "test", "here", actor="operator", idempotency_key="back")
    assert await database.fetchval("SELECT first_paid_at FROM customers WHERE id = $1", customer.id) == since
    await _clean(database)


async def test_access_keeps_its_end_its_key_and_its_plan_and_is_renewed(database: Database) -> None:
    await database.add_customer()
    await _open(database, 1001, OpeningBalance(credit=Money(20_000)))
    wanted = await _bring(database, plan_days=30, price=Money(9_900), auto_renew=True, ends_in=timedelta(days=3))
    again = await database.run(open_access, 1001, wanted, idempotency_key="old:1", actor="import")
    assert (again.replayed, again.new_end) == (True, wanted.ends_at)
    view = await database.run(get_subscription, 1001)
    assert view is not None and view.key is not None
    assert (view.expires_at, view.tariff, view.source, view.auto_renew) == (wanted.ends_at, "basic", "payment", True)
    assert view.key.uuid == wanted.uuid
    await database.move_clock(days=2.9)
    owner = await database.run(enlist_claimer, "worker")
    for claim in await database.run(claim_renewals, owner, 10, 60.0):
        await database.run(renew, claim)
    assert await database.fetchval("SELECT expires_at FROM subscriptions") == wanted.ends_at + timedelta(days=30)
    assert (await _purses(database, 1001)).credit == Money(20_000 - 14_900)
    await _clean(database)


async def test_time_that_is_bought_follows_time_that_was_brought_along(database: Database) -> None:
    await database.add_customer()
    wanted = await _bring(database)
    bought = await database.buy()
    assert bought.expires_at == wanted.ends_at + timedelta(days=30)
    await database.run(refund_charge, "test", "charge-1", actor="operator", idempotency_key="back")
    assert await database.fetchval("SELECT expires_at FROM subscriptions") == wanted.ends_at
    await _clean(database)


async def test_a_trial_that_was_used_elsewhere_is_the_only_one(database: Database) -> None:
    await database.add_customer()
    at = await _now(database) - AGO
    assert await database.run(note_used_trial, 1001, at, actor="import")
    assert not await database.run(note_used_trial, 1001, at + timedelta(days=1), actor="import")
    with pytest.raises(BusinessError, match="one per customer"):
        await database.run(grant_trial, 1001, actor="front_end:test")
    assert await database.fetchval("SELECT granted_at FROM trials") == at
    await _clean(database)


async def test_a_past_payer_of_another_system_is_one_here(database: Database) -> None:
    await database.add_customer()
    await _open(database, 1001, OpeningBalance(spent_paid=Money(1), paid_since=await _now(database) - AGO))
    with pytest.raises(BusinessError, match="has bought access before"):
        await database.run(grant_trial, 1001, actor="front_end:test", rules=TrialSettings(past_payers=False))


async def test_a_trial_that_was_brought_along_is_reminded_of_by_its_own_beginning(database: Database) -> None:
    await database.add_customer()
    wanted = await _bring(database, source="trial", ends_in=timedelta(hours=30))
    row = await database.fetchval("SELECT began_at || ' ' || due_at FROM reminder_schedule")
    began, due = wanted.ends_at - timedelta(hours=72), wanted.ends_at - timedelta(hours=24)
    assert row == await database.fetchval("SELECT $1::timestamptz || ' ' || $2::timestamptz", began, due)


async def test_an_opening_comes_first_and_stands_for_itself(database: Database) -> None:
    """What is here already is a conflict, and nothing changes."""
    await database.add_customer()
    await database.add_customer(2002)
    await _open(database, 1001, FULL)
    for telegram_id, brought, key, what in (
        (
            1001,
            attrs.evolve(FULL, credit=Money(2_001)),
            "old:1",
            "'old:1' already stands for another opening: credit 2000, not 2001",
        ),
        (1001, FULL, "old:2", "was opened by the key 'old:1' already"),
        (2002, FULL, "old:1", "'old:1' already stands for the opening of customer number"),
        (2002, FULL, " ", "an opening has a key"),
        (2002, OpeningBalance(spent_paid=Money(1), paid_since=await _now(database) + AGO), "old:2", "is to come"),
    ):
        with pytest.raises(BusinessError, match=what):
            await _open(database, telegram_id, brought, key)
    await database.topup(2002)
    with pytest.raises(BusinessError, match="has 1 journals here already"):
        await _open(database, 2002, FULL, "old:2")
    with pytest.raises(UnknownCustomer):
        await _open(database, 3003, FULL, "old:3")
    assert await database.count("openings") == 1
    await _clean(database)


async def test_access_that_conflicts_is_refused_and_changes_nothing(database: Database) -> None:
    for telegram_id in (1001, 2002, 3003):
        await database.add_customer(telegram_id)
    first = await _bring(database)
    await database.buy(2002, charge_id="here")
    twin = UUID(bytes=first.uuid.bytes[:6] + bytes(byte ^ 255 for byte in first.uuid.bytes[6:8]) + first.uuid.bytes[8:])

    async def refused(what: str, telegram_id: int, key: str, **facts: Any) -> None:
        with pytest.raises(BusinessError, match=what) as refusal:
            await _bring(database, telegram_id, key=key, **facts)
        assert str(first.uuid) not in str(refusal.value)

    await refused("already stands for another opening: another VPN key", 1001, "old:1", ends_at=first.ends_at)
    await refused("auto_renew False, not True", 1001, "old:1", plan_days=30, price=Money(1), auto_renew=True)
    await refused("was opened by the key 'old:1' already", 1001, "old:2")
    await refused("has or had access here", 2002, "old:2")
    await refused("is another one's here", 3003, "old:3", uuid=twin)
    await refused("nothing is left of it", 3003, "old:3", ends_in=timedelta(0))
    await refused("is not in the price list", 3003, "old:3", plan_days=31, price=Money(1))
    with pytest.raises(UnknownTariff):
        await _bring(database, 3003, key="old:3", tariff="gold")
    assert await database.count("opening_grants") == 1
    assert await database.count("vpn_keys") == 2
    await _clean(database)


NOW = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
MISTAKES: list[tuple[str, Callable[[], object]]] = [
    ("opens nothing", OpeningBalance),
    ("below zero", lambda: OpeningBalance(paid=Money(-1))),
    ("debt not above it", lambda: OpeningBalance(debt=Money(1))),
    ("in roubles", lambda: OpeningBalance(paid=Money(1, "USDT"))),
    ("cannot have been rewarded", lambda: OpeningBalance(paid=Money(1), rewarded_paid=Money(2))),
    ("there is no time", lambda: OpeningBalance(spent_paid=Money(1))),
    ("there is no time", lambda: OpeningBalance(paid=Money(1), paid_since=NOW)),
    ("no time zone", lambda: OpeningBalance(spent_paid=Money(1), paid_since=NOW.replace(tzinfo=None))),
    ("no time zone", lambda: OpeningAccess("basic", NOW.replace(tzinfo=None), uuid4(), "payment")),
    ("a plan has a price", lambda: OpeningAccess("basic", NOW, uuid4(), "payment", 30)),
    ("does not cost", lambda: OpeningAccess("basic", NOW, uuid4(), "payment", 30, Money(-1))),
    ("was not bought", lambda: OpeningAccess("basic", NOW, uuid4(), "trial", 30, Money(1))),
    ("no known plan", lambda: OpeningAccess("basic", NOW, uuid4(), "payment", auto_renew=True)),
]


@pytest.mark.parametrize(("what", "make"), MISTAKES, ids=[what for what, _ in MISTAKES])
def test_what_cannot_have_been_is_refused(what: str, make: Callable[[], object]) -> None:
    with pytest.raises(BusinessError, match=what):
        make()


async def test_a_used_trial_has_a_time_in_the_past(database: Database) -> None:
    await database.add_customer()
    ways: list[tuple[datetime, str]] = [
        (datetime(2020, 1, 1), "no time zone"),  # noqa: DTZ001 - the mistake
        (await _now(database) + AGO, "is to come"),
    ]
    for at, what in ways:
        with pytest.raises(BusinessError, match=what):
            await database.run(note_used_trial, 1001, at, actor="import")
    assert await database.count("trials") == 0


async def test_the_text_of_an_access_has_no_whole_key(database: Database) -> None:
    await database.add_customer()
    wanted = await _bring(database)
    assert str(wanted.uuid) not in repr(wanted)
    for table in ("audit", "opening_grants", "outbox"):
        assert not await database.fetchval(
            f"SELECT EXISTS (SELECT FROM {table} t WHERE t::text LIKE $1)", f"%{wanted.uuid}%"
        )
