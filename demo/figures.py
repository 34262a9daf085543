"""What the month came to, read from the ledger, the schedule of keys, the outbox, the metrics and the supervisor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final

import attrs
import httpx

from demo.database import DemoDatabase

_WAIT_BUCKET: Final = re.compile(r'^atlas_lease_wait_seconds_bucket\{.*le="([^"]+)".*\} (\S+)$', re.MULTILINE)
_SPIKES: Final = re.compile(r"^atlas_lease_wait_spikes_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@attrs.frozen
class Waits:
    """How long callers waited for a connection of a pool."""

    leases: int
    within: dict[float, int]
    """How many waited at most so many seconds."""
    spikes: int

    def quantile_within(self, share: float) -> float:
        """The smallest limit that so large a share waited at most."""
        return next((limit for limit, count in sorted(self.within.items()) if count >= share * self.leases), math.inf)


@attrs.frozen
class Figures:
    """The month in numbers. Amounts in kopecks, times in seconds."""

    customers: int
    money_from_outside: int
    """By the ledger: what came from the world, less what went back there."""
    charges: dict[str, int]
    """By provider."""
    deliveries: int
    purchases: int
    topups: int
    credited: int
    balance_purchases: int
    renewals: int
    rewards: int
    refunds: int
    """Chargebacks apart."""
    chargebacks: int
    compensations: int
    withdrawals: int
    """Paid out."""
    activations: int
    activation_p50: float
    activation_p99: float
    notices: dict[str, int]
    """Sent, by kind."""
    undelivered: int
    open_cases: int
    waits: Waits
    restarts: dict[str, int]
    """By actor, only those that restarted."""

    @property
    def reminders(self) -> int:
        """Sent."""
        return sum(count for kind, count in self.notices.items() if kind.startswith("reminder_"))


async def read_figures(database: DemoDatabase, status: dict[str, Any], deliveries: int) -> Figures:
    """Read them all."""
    row = (
        await database.rows(
            """
            SELECT (SELECT count(*) FROM customers) AS customers,
                   (SELECT -coalesce(sum(p.amount), 0)::bigint FROM postings p JOIN accounts a ON a.id = p.account_id
                    WHERE a.kind = 'world' AND a.currency = 'RUB') AS money_from_outside,
                   (SELECT count(*) FROM journals WHERE kind = 'purchase') AS purchases,
                   (SELECT count(*) FROM journals WHERE kind = 'topup') AS topups,
                   (SELECT count(*) FROM journals WHERE kind = 'payment_credit') AS credited,
                   (SELECT count(*) FROM journals WHERE kind = 'balance_purchase') AS balance_purchases,
                   (SELECT count(*) FROM renewals) AS renewals,
                   (SELECT coalesce(sum(amount), 0)::bigint FROM referral_rewards) AS rewards,
                   (SELECT count(*) FROM journals WHERE kind = 'refund') AS went_back,
                   (SELECT count(*) FROM cases WHERE kind = 'chargeback') AS chargebacks,
                   (SELECT count(*) FROM journals WHERE kind = 'compensation') AS compensations,
                   (SELECT count(*) FROM withdrawals WHERE state = 'paid') AS withdrawals,
                   (SELECT count(*) FROM cases WHERE state = 'open') AS open_cases,
                   first.activations, coalesce(first.p50, 0) AS p50, coalesce(first.p99, 0) AS p99
            FROM (SELECT count(*) AS activations, percentile_cont(0.5) WITHIN GROUP (ORDER BY took) AS p50,
                         percentile_cont(0.99) WITHIN GROUP (ORDER BY took) AS p99
                  FROM (SELECT extract(epoch FROM activated_at - created_at)::float8 AS took
                        FROM vpn_keys WHERE activated_at IS NOT NULL) AS each) AS first
            """
        )
    )[0]
    charges = await database.rows("SELECT provider, count(*) AS n FROM money_in GROUP BY provider ORDER BY provider")
    children = status["children"]
    return Figures(
        customers=row["customers"],
        money_from_outside=row["money_from_outside"],
        charges={each["provider"]: each["n"] for each in charges},
        deliveries=deliveries,
        purchases=row["purchases"],
        topups=row["topups"],
        credited=row["credited"],
        balance_purchases=row["balance_purchases"],
        renewals=row["renewals"],
        rewards=row["rewards"],
        refunds=row["went_back"] - row["chargebacks"],
        chargebacks=row["chargebacks"],
        compensations=row["compensations"],
        withdrawals=row["withdrawals"],
        activations=row["activations"],
        activation_p50=row["p50"],
        activation_p99=row["p99"],
        notices=dict(sorted(database.notices.items())),
        undelivered=database.undelivered,
        open_cases=row["open_cases"],
        waits=read_waits(await _metrics(fact(children, "admin", "listening"))),
        restarts={child["name"]: child["restarts"] for child in children if child["restarts"]},
    )


def fact(children: Iterable[dict[str, Any]], name: str, key: str) -> str:
    """What a child says of itself, such as where it listens."""
    return next(str(child["facts"][key]) for child in children if child["name"] == name)


def read_waits(metrics: str) -> Waits:
    """The waits of all pools together, out of the text of `/metrics`."""
    within: dict[float, int] = {}
    for limit, count in _WAIT_BUCKET.findall(metrics):
        within[float(limit)] = within.get(float(limit), 0) + int(float(count))
    spikes = sum(int(float(count)) for count in _SPIKES.findall(metrics))
    return Waits(within.get(math.inf, 0), within, spikes)


async def _metrics(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=15.0) as client:
        response = await client.get(f"{url}/metrics")
        response.raise_for_status()
        return response.text
