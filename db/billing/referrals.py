"""Referral rewards: a share of each rouble from outside that a friend spends on access, once.

Outside money is spent on access by a purchase through a provider, and by the part of a purchase from the balance or a
renewal that the purse `paid` covers. A top-up buys nothing and earns nothing. A reward is held back for some days before
it can be withdrawn. When the money that it was given for goes back, so does the reward: from the purse `earned`, and what
that does not hold becomes a debt, which later rewards pay first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import attrs

from db.billing.ledger import Journal, Leg, Purse, PurseKind, post, purses
from db.money import Money
from db.tx import Tx, rows_of
from db.work.audit import Notice

TIERS = ((50, 45), (25, 25), (0, 10))
"""(from how many distinct paying friends, percent), best first."""


class Buyer(Protocol):
    """A customer, as far as a reward needs to know."""

    @property
    def id(self) -> int: ...

    @property
    def referrer_id(self) -> int | None: ...


@attrs.frozen
class ReferralReward:
    """A reward that was paid to a referrer."""

    id: int
    referrer_id: int
    friends: int
    percent: int
    amount: Money


@attrs.frozen
class ReferralStanding:
    """How many friends of a referrer pay, which percentage that gives, and what it has earned so far."""

    friends: int
    """Distinct friends who bought access with money from outside."""
    percent: int
    """The share of what these friends spend next."""
    earned: Money
    """All rewards so far, less what was taken back."""


@attrs.frozen
class Withdrawable:
    """What of the purse `earned` can be withdrawn now, and what has to wait."""

    amount: Money
    earned: Money
    unmatured: Money
    """Rewards that are still held back, less what was taken back of them."""
    next_at: datetime | None
    """When the first of these can be withdrawn; `None`: none is held back."""


def referral_percent(friends: int) -> int:
    """The referrer's share in percent, by the number of distinct paying friends, the buyer included."""
    return next(percent for least, percent in TIERS if friends >= least)


async def set_hold_days(tx: Tx, days: int) -> bool:
    """Let rewards from now on be held back for so many days, from 0 to 3650. `False`: that was the rule already."""
    tag = await tx.execute(
        """
        INSERT INTO referral_rules (hold_days)
        SELECT $1 WHERE $1 <> (SELECT hold_days FROM referral_rules ORDER BY id DESC LIMIT 1)
        """,
        days,
    )
    return rows_of(tag) == 1


async def paying_friends(tx: Tx, referrer_id: int) -> int:
    """How many distinct friends have bought access with money from outside; a trial or a top-up does not make one."""
    friends: int = await tx.fetchval(
        "SELECT count(*) FROM customers WHERE referrer_id = $1 AND first_paid_at IS NOT NULL", referrer_id
    )
    return friends


async def referral_standing(tx: Tx, customer_id: int) -> ReferralStanding:
    """Return what a customer's invitations have brought, as the shop shows it."""
    row = await tx.fetchrow(
        """
        SELECT coalesce(sum(amount), 0)::bigint AS earned FROM postings p
        JOIN journals j ON j.id = p.journal_id JOIN accounts a ON a.id = p.account_id
        WHERE a.customer_id = $1 AND a.currency = 'RUB' AND j.kind IN ('referral_reward', 'referral_clawback')
        """,
        customer_id,
    )
    assert row is not None, "an aggregate has one row"
    friends = await paying_friends(tx, customer_id)
    return ReferralStanding(friends, referral_percent(friends), Money(row["earned"]))


async def withdrawable(tx: Tx, customer_id: int, currency: str = "RUB") -> Withdrawable:
    """How much the customer can withdraw now: what was earned, less the rewards that are still held back."""
    row = await tx.fetchrow(
        """
        SELECT coalesce(sum(held.amount), 0)::bigint AS unmatured, min(held.matures_at) AS next_at
        FROM (SELECT r.matures_at,
                     r.amount - coalesce((SELECT sum(amount) FROM reward_takebacks WHERE reward_id = r.id), 0) AS amount
              FROM referral_rewards r
              WHERE r.referrer_id = $1 AND r.currency = $2 AND r.matures_at > (SELECT atlas_now())) AS held
        WHERE held.amount > 0
        """,
        customer_id,
        currency,
    )
    assert row is not None, "an aggregate has one row"
    earned = (await purses(tx, customer_id, currency)).earned
    unmatured = Money(row["unmatured"], currency)
    return Withdrawable(max(earned - unmatured, Money(0, currency)), earned, unmatured, row["next_at"])


async def note_spending(tx: Tx, buyer: Buyer, journal_id: int, paid: Money) -> ReferralReward | None:
    """Note what a purchase from the balance took from the purse `paid`: reward the referrer, if there is one.

    What was rewarded when it came in, before top-ups stopped earning anything or in another system, is not rewarded again:
    such money counts as spent first. The caller has posted the journal and holds the rows of both. `None`: nothing is rewarded.
    """
    if not paid:
        return None
    if buyer.referrer_id is None:
        await tx.execute(
            "UPDATE customers SET first_paid_at = atlas_now() WHERE id = $1 AND first_paid_at IS NULL", buyer.id
        )
        return None
    base: int = await tx.fetchval(
        """
        WITH brought AS (
            SELECT o.rewarded_paid - coalesce((
                SELECT sum(f.amount) FROM refunds f
                JOIN journals back ON back.id = f.journal_id AND back.kind = 'refund' AND back.customer_id = o.customer_id
                JOIN referral_rewards r ON r.money_in_id = f.money_in_id AND r.spending_journal_id IS NULL
                WHERE f.journal_id > o.last_journal
                  AND EXISTS (SELECT FROM journals c WHERE c.money_in_id = f.money_in_id
                              AND c.kind IN ('topup', 'payment_credit', 'case_credit'))), 0) AS rewarded
            FROM (SELECT customer_id, sum(rewarded_paid) AS rewarded_paid, max(last_journal) AS last_journal
                  FROM (SELECT customer_id, rewarded_paid, last_journal FROM purse_openings WHERE customer_id = $1
                        UNION ALL SELECT customer_id, rewarded_paid, 0 FROM openings WHERE customer_id = $1) AS each
                  WHERE rewarded_paid > 0 GROUP BY customer_id) AS o
        ), spent AS (
            SELECT -coalesce(sum(p.amount), 0) AS amount FROM accounts a
            JOIN postings p ON p.account_id = a.id JOIN journals j ON j.id = p.journal_id
            WHERE a.customer_id = $1 AND a.kind = 'paid' AND a.currency = $3
              AND j.kind IN ('balance_purchase', 'auto_renewal') AND EXISTS (SELECT FROM brought)
        )
        SELECT coalesce((SELECT (greatest(0, spent.amount - greatest(0, brought.rewarded))
                                 - greatest(0, spent.amount - $2::bigint - greatest(0, brought.rewarded)))::bigint
                         FROM brought, spent), $2::bigint)
        """,
        buyer.id,
        paid.amount,
        paid.currency,
    )
    return await reward_referrer(tx, buyer.id, journal_id, Money(base, paid.currency))


async def reward_referrer(
    tx: Tx, buyer_id: int, spending_journal_id: int, base: Money, money_in_id: int | None = None
) -> ReferralReward | None:
    """Note that the buyer is a paying customer, and pay the referrer's share of what was spent, if there is a referrer.

    `base` is the outside money that the journal spent on access and that nobody was rewarded for; `money_in_id` the
    charge, if a provider captured it for this very purchase. The share pays the referrer's debt first. The caller holds the
    rows of both (`lock_customers`), calls this once per journal and tells the referrer (`reward_notice`); nothing outside
    this database is asked. `None`: no referrer, or a share below one kopeck.
    """
    row = await tx.fetchrow(
        """
        WITH buyer AS (
            UPDATE customers SET first_paid_at = coalesce(first_paid_at, atlas_now()) WHERE id = $1
            RETURNING referrer_id
        )
        SELECT referrer_id,  -- the buyer is counted, whether or not this is their first payment
               1 + (SELECT count(*) FROM customers c WHERE c.referrer_id = buyer.referrer_id AND c.first_paid_at IS NOT NULL
                    AND c.id <> $1) AS friends,
               coalesce((SELECT -a.balance FROM accounts a
                         WHERE a.customer_id = buyer.referrer_id AND a.kind = 'debt' AND a.currency = $2), 0) AS owed
        FROM buyer WHERE referrer_id IS NOT NULL
        """,
        buyer_id,
        base.currency,
    )
    if row is None:
        return None
    referrer_id: int = row["referrer_id"]
    percent = referral_percent(row["friends"])
    share = base.percent(percent)
    if not share:
        return None
    pays_debt = min(share, Money(row["owed"], share.currency))
    parts: tuple[tuple[PurseKind, Money], ...] = (("debt", pays_debt), ("earned", share - pays_debt))
    to_referrer = [Leg(Purse(referrer_id, kind), part) for kind, part in parts if part]
    journal_id = await post(
        tx,
        Journal(
            "referral_reward",
            f"referral:{spending_journal_id}",
            [Leg("referral_expense", -share), *to_referrer],
            customer_id=referrer_id,
            money_in_id=money_in_id,
        ),
    )
    number: int = await tx.fetchval(
        """
        INSERT INTO referral_rewards (buyer_id, referrer_id, money_in_id, journal_id, friends, percent, amount, currency,
                                      spending_journal_id, base, matures_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, atlas_now() + referral_hold()) RETURNING id
        """,
        buyer_id,
        referrer_id,
        money_in_id,
        journal_id,
        row["friends"],
        percent,
        share.amount,
        share.currency,
        spending_journal_id,
        base.amount,
    )
    return ReferralReward(number, referrer_id, row["friends"], percent, share)


def reward_notice(reward: ReferralReward) -> Notice:
    """The notice to the referrer of a reward."""
    return Notice(
        "referral_reward",
        f"reward:{reward.id}",
        reward.referrer_id,
        {"amount": reward.amount.amount, "currency": reward.amount.currency, "percent": reward.percent},
    )


@attrs.frozen
class Takeback:
    """What is to be taken back of one reward, because so much of the money that it was given for went back."""

    reward_id: int
    base: Money
    amount: Money


async def due_of_charge(tx: Tx, money_in_id: int, value: Money, refunded: Money, booked: Money) -> Sequence[Takeback]:
    """What is due of the reward that a charge itself earned, now that `refunded` of `booked` went back in all.

    `value` is what this refund adds. Empty: the charge earned none, as a top-up does.
    """
    row = await tx.fetchrow(
        """
        SELECT r.id, r.amount, coalesce((SELECT sum(amount) FROM reward_takebacks WHERE reward_id = r.id), 0)::bigint AS taken
        FROM referral_rewards r WHERE r.money_in_id = $1
        """,
        money_in_id,
    )
    if row is None:
        return ()
    due = Money(row["amount"] * refunded.amount // booked.amount - row["taken"], booked.currency)
    return (Takeback(row["id"], value, due),)


async def due_of_spent(tx: Tx, buyer_id: int, lost: Money) -> Sequence[Takeback]:
    """What is due of the rewards for purchases from the balance, when `lost` of the outside money in them went back.

    The newest purchases are what that money bought.
    """
    rows = await tx.fetch(
        """
        SELECT r.id, r.base, r.amount, coalesce(sum(t.base), 0)::bigint AS lost, coalesce(sum(t.amount), 0)::bigint AS taken
        FROM referral_rewards r LEFT JOIN reward_takebacks t ON t.reward_id = r.id
        WHERE r.buyer_id = $1 AND r.currency = $2 AND r.spending_journal_id IS NOT NULL AND r.money_in_id IS NULL
        GROUP BY r.id ORDER BY r.id DESC
        """,
        buyer_id,
        lost.currency,
    )
    found = []
    left = lost.amount
    for row in rows:
        part = min(left, row["base"] - row["lost"])
        if part:
            due = row["amount"] * (row["lost"] + part) // row["base"] - row["taken"]
            found.append(Takeback(row["id"], Money(part, lost.currency), Money(due, lost.currency)))
        left -= part
    return found


async def claw_back(
    tx: Tx, referrer_id: int, due: Sequence[Takeback], *, refund_journal_id: int, money_in_id: int, idempotency_key: str
) -> tuple[int | None, Money]:
    """Take rewards back for a refund: from `earned`, and what that does not hold becomes a debt. No floor is lowered.

    Parts of which the share rounds to nothing are written down too, so that later ones count from there. The caller holds
    the referrer's row and writes the journal's id into the refund. Returns that id (`None`: nothing was due) and what was
    taken back in all, the debt included.
    """
    if not due:
        return None, Money(0)
    total = sum((each.amount for each in due), Money(0, due[0].amount.currency))
    journal_id = await _post_claw_back(tx, referrer_id, total, money_in_id, idempotency_key) if total else None
    await tx.execute(
        """
        INSERT INTO reward_takebacks (reward_id, journal_id, base, amount)
        SELECT reward_id, $1, base, amount FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS due (reward_id, base, amount)
        """,
        refund_journal_id if journal_id is None else journal_id,
        [each.reward_id for each in due],
        [each.base.amount for each in due],
        [each.amount.amount for each in due],
    )
    return journal_id, total


async def _post_claw_back(tx: Tx, referrer_id: int, total: Money, money_in_id: int, idempotency_key: str) -> int:
    held = await purses(tx, referrer_id, total.currency)
    there = min(held.earned, total)
    parts: tuple[tuple[PurseKind, Money], ...] = (("earned", there), ("debt", total - there))
    return await post(
        tx,
        Journal(
            "referral_clawback",
            f"clawback:{idempotency_key}",
            [*(Leg(Purse(referrer_id, kind), -part) for kind, part in parts if part), Leg("referral_expense", total)],
            customer_id=referrer_id,
            money_in_id=money_in_id,
        ),
    )


async def forget_refunded_payments(tx: Tx, customer_id: int) -> None:
    """After a refund: a customer all of whose purchases with outside money went back is no paying friend any more.

    Outside money in purchases from the balance counts as gone back as far as refunds found it spent.
    """
    await tx.execute(
        """
        UPDATE customers SET first_paid_at = NULL
        WHERE id = $1 AND first_paid_at IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM money_in m JOIN entitlement_events e ON e.money_in_id = m.id
              WHERE m.customer_id = $1
                AND m.booked_amount > (SELECT coalesce(sum(amount), 0) FROM refunds WHERE money_in_id = m.id))
          AND coalesce((SELECT spent_paid FROM purse_openings WHERE customer_id = $1), 0)
              + coalesce((SELECT spent_paid FROM openings WHERE customer_id = $1), 0)
              + coalesce((SELECT -sum(p.amount) FROM accounts a JOIN postings p ON p.account_id = a.id
                          JOIN journals j ON j.id = p.journal_id
                          WHERE a.customer_id = $1 AND a.kind = 'paid' AND j.kind IN ('balance_purchase', 'auto_renewal')), 0)
              <= coalesce((SELECT sum(f.spent) FROM journals j JOIN refunds f ON f.journal_id = j.id
                           WHERE j.kind = 'refund' AND j.customer_id = $1
                             AND j.id > coalesce((SELECT last_journal FROM purse_openings WHERE customer_id = $1), 0)), 0)
        """,
        customer_id,
    )
