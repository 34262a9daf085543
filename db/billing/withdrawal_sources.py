"""Where a customer's earned money came from: what whoever approves a withdrawal looks at first."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs

from db.money import Money
from db.tx import Tx

MOST_BUYERS = 100


@attrs.frozen
class BuyerRewards:
    """What one friend's payments have earned the customer."""

    telegram_id: int
    rewards: int
    earned: Money
    taken_back: Money
    """By refunds of these payments."""
    first_at: datetime
    last_at: datetime


@attrs.frozen
class MoneySources:
    """All that was ever booked on what a customer earned; only that can be withdrawn."""

    by_kind: Mapping[str, Money]
    """The sum of each kind of journal: positive came in, negative went out."""
    buyers: Sequence[BuyerRewards]
    """The friends whose payments earned rewards, the most first; at most `MOST_BUYERS`."""


async def money_sources(tx: Tx, customer_id: int) -> MoneySources:
    """Sum up the journals of the customer's purse `earned` by kind, and the rewards by buyer."""
    kinds = await tx.fetch(
        """
        SELECT j.kind, sum(p.amount)::bigint AS amount
        FROM accounts a JOIN postings p ON p.account_id = a.id JOIN journals j ON j.id = p.journal_id
        WHERE a.customer_id = $1 AND a.kind = 'earned' AND a.currency = 'RUB'
        GROUP BY j.kind ORDER BY sum(p.amount) DESC, j.kind
        """,
        customer_id,
    )
    buyers = await tx.fetch(
        """
        SELECT c.telegram_id, count(*) AS rewards, sum(r.amount)::bigint AS earned,
               coalesce(sum(taken.amount), 0)::bigint AS taken_back, min(r.created_at) AS first_at, max(r.created_at) AS last_at
        FROM referral_rewards r JOIN customers c ON c.id = r.buyer_id
        CROSS JOIN LATERAL (SELECT sum(amount) AS amount FROM reward_takebacks WHERE reward_id = r.id) AS taken
        WHERE r.referrer_id = $1
        GROUP BY c.telegram_id ORDER BY sum(r.amount) DESC, c.telegram_id LIMIT $2
        """,
        customer_id,
        MOST_BUYERS,
    )
    return MoneySources(
        {row["kind"]: Money(row["amount"]) for row in kinds},
        [
            BuyerRewards(
                row["telegram_id"],
                row["rewards"],
                Money(row["earned"]),
                Money(row["taken_back"]),
                row["first_at"],
                row["last_at"],
            )
            for row in buyers
        ],
    )
