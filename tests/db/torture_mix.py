"""The mix of operations of the torture: many jobs that say the same thing twice, and what they add up to in any order."""

from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from db.access.subscriptions import expire_page
from db.billing.adjustments import adjust_balance
from db.billing.balance_purchases import finalize_balance_purchase
from db.billing.cases import credit_case
from db.billing.compensation import compensate
from db.billing.grants import grant_trial
from db.billing.orders import open_order, open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.promos import add_promo
from db.billing.purchases import finalize_purchase
from db.billing.refunds import refund_charge
from db.billing.renewal_schedule import RenewalClaim, claim_renewals
from db.billing.renewals import renew, set_auto_renew
from db.billing.withdrawals import approve_withdrawal, list_withdrawals, masked, reject_withdrawal, request_withdrawal
from db.money import Money
from db.tx import Tx
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import SEAL, Database
from tests.db.torture import Work

REFUSED = "a card of nobody"
"""Withdrawals to there are rejected."""


@attrs.frozen
class Mix:
    """The jobs and what they add up to."""

    jobs: Sequence[Work]
    totals: dict[str, int]
    """Sum per system account and of all balances, how many journals of each kind, trials, renewals, states of access."""
    claims: dict[int, RenewalClaim]
    """The renewals that are claimed, by subscription."""


async def prepare(database: Database, size: int = 1) -> Mix:
    """Customers, orders and funds, and the jobs upon them; ``size`` multiplies."""
    jobs: list[Work] = []
    totals: Counter[str] = Counter()

    def add(times: int, work: Work) -> None:
        jobs.extend([work] * times)

    def count(kind: str, number: int, **moves: int) -> None:
        if kind:
            totals[f"journals {kind}"] += number
        for account, amount in moves.items():
            totals[account] += number * amount

    claims: dict[int, RenewalClaim] = {}
    await _renewed(database, size, add, count, claims)
    await _lapsed(database, size, add, count)
    await database.move_clock(days=29.9)
    await _payers(database, size, add, count)
    await _spenders(database, size, add, count)
    await _withdrawers(database, size, add, count)
    await _refunded(database, size, add, count)
    await _promos(database, size, add, count)
    await _strangers(database, size, add, count)
    await _triers(database, size, add, count)
    await _compensated(database, size, add, count)
    return Mix(jobs, {name: value for name, value in totals.items() if value}, claims)


Add = Callable[[int, Work], None]
Count = Callable[..., None]


async def _payers(database: Database, size: int, add: Add, count: Count) -> None:
    """Friends who refer to each other in rings of three buy and top up; every charge is reported three times."""
    for ring in range(2 * size):
        people = [10_000 + 10 * ring + number for number in range(3)]
        ids = [(await database.add_customer(telegram_id)).id for telegram_id in people]
        async with database.connect() as connection:
            for number, own in enumerate(ids):
                # Registration cannot make a cycle; data that was taken over from elsewhere can.
                await connection.execute("UPDATE customers SET referrer_id = $1 WHERE id = $2", ids[number - 1], own)
        for telegram_id in people:
            for number in range(2):
                key = f"buy-{telegram_id}-{number}"
                order = await database.run(open_order, telegram_id, "basic", 30, idempotency_key=key)
                add(3, _pay(key, 14_900, order.id))
                count("purchase", 1, world=-14_900, revenue=14_900)
                count("referral_reward", 1, referral_expense=-1_490, earned=1_490)
            key = f"top-{telegram_id}"
            topup = await database.run(open_topup, telegram_id, Money(20_000), idempotency_key=key)
            add(3, _pay(key, 20_000, topup.id))
            count("topup", 1, world=-20_000, paid=20_000)


async def _spenders(database: Database, size: int, add: Add, count: Count) -> None:
    """Who has money for three plans asks for five at once, each twice: three are bought, nothing is overdrawn."""
    for number in range(3 * size):
        telegram_id = 20_000 + number
        await _fund(database, telegram_id, 3 * 14_900 + 5_000, count)
        for click in range(5):
            add(2, _spend(telegram_id, f"click-{click}"))
        count("balance_purchase", 3, credit=-14_900, revenue=14_900)
    await _spenders_of_outside_money(database, size, add, count)


async def _spenders_of_outside_money(database: Database, size: int, add: Add, count: Count) -> None:
    """Two who refer to each other have topped up for three plans each and ask for five at once: each is rewarded three times."""
    for pair in range(size):
        people = [25_000 + 10 * pair + number for number in range(2)]
        ids = [(await database.add_customer(telegram_id)).id for telegram_id in people]
        async with database.connect() as connection:
            for number, own in enumerate(ids):
                await connection.execute("UPDATE customers SET referrer_id = $1 WHERE id = $2", ids[1 - number], own)
        for telegram_id in people:
            await database.topup(telegram_id, 3 * 14_900 + 5_000, charge_id=f"fund-{telegram_id}")
            count("topup", 1, world=-49_700, paid=49_700)
            for click in range(5):
                add(2, _spend(telegram_id, f"click-{click}"))
        # Of the rewards of 14.90 nobody can pay another plan: what is left is 50.00 and at most 44.70.
        count("balance_purchase", 6, paid=-14_900, revenue=14_900)
        count("referral_reward", 6, referral_expense=-1_490, earned=1_490)


async def _withdrawers(database: Database, size: int, add: Add, count: Count) -> None:
    """Who has 2 000 roubles asks for 600 five times, each twice, while an operator approves what there is, and rejects what
    others ask for."""
    for number in range(2 * size):
        telegram_id = 30_000 + number
        await _earn(database, telegram_id, 200_000, count)
        for ask in range(5):
            add(2, _withdraw(telegram_id, f"ask-{ask}"))
        count("withdrawal_reserve", 3, earned=-60_000, withdrawal_reserve=60_000)
        count("withdrawal_paid", 3, withdrawal_reserve=-60_000, world=60_000)
        telegram_id = 35_000 + number
        await _earn(database, telegram_id, 200_000, count)
        for ask in range(3):
            add(2, _withdraw(telegram_id, f"ask-{ask}", REFUSED))
        count("withdrawal_reserve", 3, earned=-60_000, withdrawal_reserve=60_000)
        count("withdrawal_release", 3, withdrawal_reserve=-60_000, earned=60_000)
    add(4, settle_all)


async def _renewed(database: Database, size: int, add: Add, count: Count, claims: dict[int, RenewalClaim]) -> None:
    """Whose month ends soon is renewed once, by five workers that claim and pay at the same time and die in between."""
    for number in range(3 * size):
        telegram_id = 80_000 + number
        await _fund(database, telegram_id, 20_000, count)
        bought = await database.buy(telegram_id, charge_id=f"month-{telegram_id}")
        await database.run(set_auto_renew, telegram_id, True, actor="test")
        assert bought.subscription_id is not None
        add(5, _renewal(bought.subscription_id, claims))
        count("purchase", 1, world=-14_900, revenue=14_900)
        count("auto_renewal", 1, credit=-14_900, revenue=14_900)
        count("", 1, renewals=1)
    for worker in range(5):
        add(2, _claim(await database.run(enlist_claimer, f"worker-{worker}"), claims))


async def _lapsed(database: Database, size: int, add: Add, count: Count) -> None:
    """Whose trial has long ended is marked while half of them buy: who bought has access, whoever was first."""
    for number in range(4 * size):
        telegram_id = 85_000 + number
        await database.add_customer(telegram_id)
        await database.run(grant_trial, telegram_id, actor="front_end:test")
        if number % 2:
            key = f"late-{telegram_id}"
            add(3, _buy(telegram_id, key))
            count("purchase", 1, world=-14_900, revenue=14_900)
        count("", 1, trials=1, expired=(number + 1) % 2)
    add(6, mark_ended)


async def _triers(database: Database, size: int, add: Add, count: Count) -> None:
    """Six clicks on the trial are one trial."""
    for number in range(2 * size):
        await database.add_customer(70_000 + number)
        add(6, _try(70_000 + number))
        count("", 1, trials=1)


async def _compensated(database: Database, size: int, add: Add, count: Count) -> None:
    """What was paid for and never worked is credited once, whole, however often the operator asks for it."""
    for number in range(2 * size):
        telegram_id = 90_000 + number
        await database.add_customer(telegram_id)
        bought = await database.buy(telegram_id, charge_id=f"broken-{telegram_id}")
        assert bought.subscription_id is not None
        add(4, _compensation(bought.subscription_id))
        count("purchase", 1, world=-14_900, revenue=14_900)
        count("compensation", 1, compensation_expense=-14_900, credit=14_900)


async def _refunded(database: Database, size: int, add: Add, count: Count) -> None:
    """Of a charge of 149 roubles five refunds of 40 are asked for at once: three fit; the reward shrinks with them."""
    for number in range(2 * size):
        referrer, friend = 40_000 + 10 * number, 40_001 + 10 * number
        await database.add_customer(referrer)
        await database.add_customer(friend, referrer=referrer)
        await database.buy(friend, charge_id=f"refunded-{number}")
        count("purchase", 1, world=-14_900, revenue=14_900)
        count("referral_reward", 1, referral_expense=-1_490, earned=1_490)
        for part in range(5):
            add(2, _refund(f"refunded-{number}", f"part-{number}-{part}"))
        count("refund", 3, revenue=-4_000, world=4_000)
        count("referral_clawback", 3)
        count("", 1, earned=-1_200, referral_expense=1_200)


async def _promos(database: Database, size: int, add: Add, count: Count) -> None:
    """Six customers want a code that three may use: three orders are opened and paid."""
    for number in range(size):
        code = f"code{number}"
        await database.run(add_promo, code, 50, max_uses=3, actor="test")
        for person in range(6):
            telegram_id = 50_000 + 10 * number + person
            await database.add_customer(telegram_id)
            add(2, _buy_with_promo(telegram_id, code))
        count("purchase", 3, world=-7_450, revenue=7_450)


async def _strangers(database: Database, size: int, add: Add, count: Count) -> None:
    """Money of nobody known is parked, and two operators credit it to two customers at once: one of them gets it."""
    await database.add_customer(60_001)
    await database.add_customer(60_002)
    for number in range(2 * size):
        parked = await database.run(
            finalize_purchase, FinalizePurchase("test", f"stranger-{number}", Money(5_000), None, 1)
        )
        assert parked.case_id is not None
        count("suspense", 1, world=-5_000, suspense=5_000)
        for telegram_id in (60_001, 60_002):
            add(2, _credit(parked.case_id, telegram_id))
        count("case_credit", 1, suspense=-5_000, paid=5_000)


async def _fund(database: Database, telegram_id: int, kopecks: int, count: Count) -> None:
    await database.add_customer(telegram_id)
    await database.run(
        adjust_balance, telegram_id, Money(kopecks), reason="x", actor="test", idempotency_key=f"fund-{telegram_id}"
    )
    count("admin_adjust", 1, adjustment=-kopecks, credit=kopecks)


async def _earn(database: Database, telegram_id: int, kopecks: int, count: Count) -> None:
    await database.add_customer(telegram_id)
    await database.earn(telegram_id, kopecks)
    count("purchase", 1, world=-10 * kopecks, revenue=10 * kopecks)
    count("referral_reward", 1, referral_expense=-kopecks, earned=kopecks)


def _pay(charge_id: str, kopecks: int, order_id: int) -> Work:
    return lambda tx: finalize_purchase(tx, FinalizePurchase("test", charge_id, Money(kopecks), order_id))


def _spend(telegram_id: int, key: str) -> Work:
    return lambda tx: finalize_balance_purchase(
        tx, telegram_id, "basic", 30, seen_price=Money(14_900), idempotency_key=key
    )


def _withdraw(telegram_id: int, key: str, destination: str = "card") -> Work:
    return lambda tx: request_withdrawal(
        tx, telegram_id, Money(60_000), destination=destination, idempotency_key=key, actor="front_end:test", seal=SEAL
    )


async def settle_all(tx: Tx) -> None:
    """Approve what waits, under the withdrawal's own reference, and reject what goes where we do not pay."""
    for found in await list_withdrawals(tx):
        if found.destination == masked(REFUSED):
            await reject_withdrawal(tx, found.id, actor="test", reason="no such card")
        else:
            await approve_withdrawal(tx, found.id, actor="test", reference=f"bank-{found.id}", second_above=None)


async def mark_ended(tx: Tx) -> None:
    """Mark all access that has ended."""
    await expire_page(tx, 0, 1000)


def _claim(owner: Claimer, claims: dict[int, RenewalClaim]) -> Work:
    """A lease that is over at once: every later claim takes the renewal over and fences this one."""

    async def work(tx: Tx) -> None:
        for claim in await claim_renewals(tx, owner, 100, 0.0):
            claims[claim.subscription_id] = claim

    return work


def _renewal(subscription_id: int, claims: dict[int, RenewalClaim]) -> Work:
    async def work(tx: Tx) -> None:
        if (claim := claims.get(subscription_id)) is not None:
            await renew(tx, claim)

    return work


async def finish(database: Database, mix: Mix) -> None:
    """What a worker does at its next round: whatever is due still."""
    await database.run(settle_all)
    await database.run(mark_ended)
    await database.run(_claim(await database.run(enlist_claimer, "last"), mix.claims))
    for claim in mix.claims.values():
        await database.run(renew, claim)


def _buy(telegram_id: int, key: str) -> Work:
    async def work(tx: Tx) -> None:
        order = await open_order(tx, telegram_id, "basic", 30, idempotency_key=key)
        await finalize_purchase(tx, FinalizePurchase("test", key, order.price, order.id))

    return work


def _try(telegram_id: int) -> Work:
    return lambda tx: grant_trial(tx, telegram_id, actor="front_end:test")


def _compensation(subscription_id: int) -> Work:
    return lambda tx: compensate(tx, subscription_id, reason="it never worked", actor="test")


def _refund(charge_id: str, key: str) -> Work:
    return lambda tx: refund_charge(tx, "test", charge_id, amount=Money(4_000), actor="test", idempotency_key=key)


def _buy_with_promo(telegram_id: int, code: str) -> Work:
    async def work(tx: Tx) -> None:
        key = f"promo-{telegram_id}"
        order = await open_order(tx, telegram_id, "basic", 30, idempotency_key=key, promo_code=code)
        await finalize_purchase(tx, FinalizePurchase("test", key, order.price, order.id))

    return work


def _credit(case_id: int, telegram_id: int) -> Work:
    return lambda tx: credit_case(tx, case_id, telegram_id, actor="test")


async def totals(database: Database) -> dict[str, int]:
    """What the ledger holds, in the words of ``Mix.totals``."""
    async with database.connect() as connection:
        rows = await connection.fetch(
            """
            SELECT a.kind AS name, sum(p.amount)::bigint AS total
            FROM postings p JOIN accounts a ON a.id = p.account_id GROUP BY a.kind
            UNION ALL
            SELECT 'journals ' || kind, count(*) FROM journals GROUP BY kind
            UNION ALL SELECT 'trials', count(*) FROM trials
            UNION ALL SELECT 'renewals', count(*) FROM renewals
            UNION ALL SELECT 'expired', count(*) FROM subscriptions WHERE state = 'expired'
            """
        )
    return {row["name"]: row["total"] for row in rows if row["total"]}
