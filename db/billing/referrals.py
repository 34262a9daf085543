"""Referral rewards: a share of each rouble that a friend brings in from outside, once."""

import attrs

from db.billing.ledger import Journal, move, post
from db.money import Money
from db.tx import Tx
from db.work.audit import Notice

TIERS = ((50, 45), (25, 25), (0, 10))
"""(from how many distinct paying friends, percent), best first."""


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
    """Distinct friends who brought in money from outside."""
    percent: int
    """The share of what these friends pay next."""
    earned: Money
    """All rewards so far, less what refunds took back."""


def referral_percent(friends: int) -> int:
    """The referrer's share in percent, by the number of distinct paying friends, the buyer included."""
    return next(percent for least, percent in TIERS if friends >= least)


async def paying_friends(tx: Tx, referrer_id: int) -> int:
    """How many distinct friends have brought in money from outside; a trial does not make one."""
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


async def reward_referrer(tx: Tx, buyer_id: int, money_in_id: int, booked: Money) -> ReferralReward | None:
    """Note that the buyer is a paying customer, and pay the referrer's share of this charge, if there is a referrer.

    The caller holds the rows of both (`lock_customers`), calls this once per charge and tells the referrer
    (`reward_notice`); nothing outside this database is asked. `None`: no referrer, or a share below one kopeck.
    """
    row = await tx.fetchrow(
        """
        WITH buyer AS (
            UPDATE customers SET first_paid_at = coalesce(first_paid_at, atlas_now()) WHERE id = $1
            RETURNING referrer_id
        )
        SELECT referrer_id,  -- the buyer is counted, whether or not this is their first payment
               1 + (SELECT count(*) FROM customers c WHERE c.referrer_id = buyer.referrer_id AND c.first_paid_at IS NOT NULL
                    AND c.id <> $1) AS friends
        FROM buyer WHERE referrer_id IS NOT NULL
        """,
        buyer_id,
    )
    if row is None:
        return None
    referrer_id: int = row["referrer_id"]
    percent = referral_percent(row["friends"])
    share = booked.percent(percent)
    if not share:
        return None
    journal_id = await post(
        tx,
        Journal(
            "referral_reward",
            f"referral:{money_in_id}",
            move("referral_expense", referrer_id, share),
            customer_id=referrer_id,
            money_in_id=money_in_id,
        ),
    )
    number: int = await tx.fetchval(
        """
        INSERT INTO referral_rewards (buyer_id, referrer_id, money_in_id, journal_id, friends, percent, amount, currency)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id
        """,
        buyer_id,
        referrer_id,
        money_in_id,
        journal_id,
        row["friends"],
        percent,
        share.amount,
        share.currency,
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
