"""The SQL of reports: every figure is a row of `facts` first, with a day, a plan, a provider and a source.

Days are days of UTC. Journals say what was sold and what went back; the entitlement events say whether access still ran when
somebody bought, and when it ran out.
"""

from __future__ import annotations

from typing import Final

FACTS: Final = """
WITH sales AS (  -- each plan that was bought, and each amount that left revenue again
    SELECT j.id, j.customer_id, j.created_at, j.kind,
           (SELECT sum(p.amount)::bigint FROM postings p WHERE p.journal_id = j.id AND p.account_id = revenue.id) AS amount,
           coalesce(m.provider, 'balance') AS provider,
           CASE WHEN o.kind = 'topup' THEN 'top-up'
                ELSE coalesce(o.tariff || ' ' || o.days,
                              renewed.tariff || ' ' || (extract(epoch FROM renewed.period) / 86400)::bigint, 'none')
           END AS plan,
           c.code AS promo,
           CASE WHEN o.promo_code_id IS NULL OR j.kind = 'refund' THEN 0 ELSE o.list_amount - o.price_amount END AS discount,
           coalesce(coalesce(granted.previous_end, renewed.previous_end) > j.created_at, false) AS was_running
    FROM accounts revenue
    JOIN journals j ON j.kind IN ('purchase', 'balance_purchase', 'auto_renewal', 'refund')
    LEFT JOIN money_in m ON m.id = j.money_in_id
    LEFT JOIN orders o ON o.id = j.order_id
    LEFT JOIN promo_codes c ON c.id = o.promo_code_id
    LEFT JOIN renewals r ON r.journal_id = j.id
    LEFT JOIN entitlement_events granted ON granted.order_id = j.order_id AND j.kind <> 'refund'
    LEFT JOIN entitlement_events renewed ON renewed.id = r.event_id
    WHERE revenue.kind = 'revenue' AND revenue.currency = $1 AND j.created_at < $3
), bought AS (
    SELECT s.*, row_number() OVER (PARTITION BY customer_id ORDER BY created_at, id) AS nth
    FROM sales s WHERE kind <> 'refund'
), given AS (
    SELECT t.granted_at, e.tariff, s.customer_id
    FROM trials t JOIN entitlement_events e ON e.id = t.event_id JOIN subscriptions s ON s.id = e.subscription_id
    WHERE t.granted_at < $3
), ends AS (  -- the end that each event left, unless another one came before it was reached
    SELECT s.customer_id, e.new_end
    FROM (SELECT e.*, lead(created_at) OVER (PARTITION BY subscription_id ORDER BY position) AS next_at
          FROM entitlement_events e WHERE created_at < $3) AS e
    JOIN subscriptions s ON s.id = e.subscription_id
    WHERE e.new_end < $3 AND e.new_end <= atlas_now() AND (e.next_at IS NULL OR e.next_at >= e.new_end)
      AND (e.new_end > e.created_at OR e.previous_end > e.created_at)  -- it ran, or this event ended it
), lapses AS (  -- with how often the customer had bought by then: counted in one pass, not looked up for each
    SELECT customer_id, at, bought FROM (
        SELECT customer_id, at, is_end,
               count(*) FILTER (WHERE NOT is_end)
                   OVER (PARTITION BY customer_id ORDER BY at, is_end ROWS UNBOUNDED PRECEDING) AS bought
        FROM (SELECT customer_id, created_at AS at, false AS is_end FROM bought
              UNION ALL SELECT customer_id, new_end, true FROM ends) AS moments) AS counted
    WHERE is_end AND bought > 0
), facts AS (
    SELECT created_at AS at, bought.customer_id, plan, provider, promo, 1 AS sales,
           coalesce(amount, 0) AS sold, 0 AS returned_money, discount,
           (nth = 1)::int AS new, (nth > 1 AND was_running)::int AS renewed, (nth > 1 AND NOT was_running)::int AS returned,
           0 AS lapsed, 0 AS trials,
           (nth = 1 AND given.granted_at IS NOT NULL)::int AS from_trial
    FROM bought LEFT JOIN given ON given.customer_id = bought.customer_id AND given.granted_at <= bought.created_at
    UNION ALL
    SELECT created_at, customer_id, plan, provider, promo, 0, 0, -amount, 0, 0, 0, 0, 0, 0, 0
    FROM sales WHERE kind = 'refund' AND amount <> 0
    UNION ALL
    SELECT granted_at, customer_id, 'trial', 'trial', NULL, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0 FROM given
    UNION ALL  -- who never bought had nothing that could lapse: a trial or a gift ended
    SELECT lapses.at, last.customer_id, last.plan, last.provider, last.promo, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0
    FROM lapses JOIN bought AS last ON last.customer_id = lapses.customer_id AND last.nth = lapses.bought
), within AS (
    SELECT f.*, (f.at AT TIME ZONE 'UTC')::date::text AS day,
           CASE WHEN c.referrer_id IS NULL THEN 'by themselves' ELSE 'invited' END AS source,
           coalesce(f.promo, 'no code') AS code
    FROM facts f JOIN customers c ON c.id = f.customer_id
    WHERE f.at >= $2
)
"""
"""`$1` is the currency, `$2` the first moment and `$3` the first one that does not count any more."""

SUMS: Final = """
       coalesce(sum(sales), 0)::bigint AS sales, coalesce(sum(sold), 0)::bigint AS sold,
       coalesce(sum(returned_money), 0)::bigint AS gone_back, coalesce(sum(discount), 0)::bigint AS discount,
       coalesce(sum(new), 0)::bigint AS new, coalesce(sum(renewed), 0)::bigint AS renewed,
       coalesce(sum(returned), 0)::bigint AS returned, coalesce(sum(lapsed), 0)::bigint AS lapsed,
       coalesce(sum(trials), 0)::bigint AS trials, coalesce(sum(from_trial), 0)::bigint AS from_trial,
       count(DISTINCT customer_id) FILTER (WHERE sales > 0) AS payers
"""

GROUPED: Final = f"""{FACTS}
SELECT coalesce(day, plan, provider, source, code, '') AS key, grouped.*
FROM (
    SELECT CASE WHEN grouping(day) = 0 THEN 'day' WHEN grouping(plan) = 0 THEN 'plan' WHEN grouping(provider) = 0 THEN 'provider'
                WHEN grouping(source) = 0 THEN 'source' WHEN grouping(code) = 0 THEN 'promo' ELSE 'all' END AS dimension,
           day, plan, provider, source, code,
           {SUMS}
    FROM within GROUP BY GROUPING SETS ((day), (plan), (provider), (source), (code), ())
) AS grouped
ORDER BY dimension, key
"""  # noqa: S608  # put together from the constants above
"""One pass for all dimensions."""

HELD: Final = """
SELECT coalesce(sum(p.amount) FILTER (WHERE a.kind = 'paid'), 0)::bigint AS paid,
       coalesce(sum(p.amount) FILTER (WHERE a.kind = 'credit'), 0)::bigint AS credit,
       coalesce(sum(p.amount) FILTER (WHERE a.kind = 'earned'), 0)::bigint AS earned,
       coalesce(sum(p.amount) FILTER (WHERE a.kind = 'debt'), 0)::bigint AS debt,
       coalesce(sum(p.amount) FILTER (WHERE a.kind = 'withdrawal_reserve'), 0)::bigint AS reserved,
       coalesce(sum(p.amount) FILTER (WHERE a.kind = 'suspense'), 0)::bigint AS unsettled,
       coalesce(-sum(p.amount) FILTER (WHERE a.kind = 'referral_expense' AND j.kind = 'referral_reward'
                                       AND j.created_at >= $2), 0)::bigint AS rewarded,
       coalesce(sum(p.amount) FILTER (WHERE a.kind = 'referral_expense' AND j.kind = 'referral_clawback'
                                      AND j.created_at >= $2), 0)::bigint AS taken_back,
       coalesce(-sum(p.amount) FILTER (WHERE a.kind = 'compensation_expense' AND j.created_at >= $2), 0)::bigint AS compensated,
       coalesce(-sum(p.amount) FILTER (WHERE a.kind = 'world' AND j.created_at >= $2), 0)::bigint AS from_outside
FROM postings p JOIN accounts a ON a.id = p.account_id JOIN journals j ON j.id = p.journal_id
WHERE p.currency = $1 AND j.created_at < $3 AND a.kind <> 'revenue'
"""
"""What is held at the end, and what rewards and compensation came to meanwhile. Signs as in db/billing/ledger.py."""

COHORT: Final = """
SELECT count(*) AS trials,
       count(*) FILTER (WHERE EXISTS (
           SELECT FROM journals j WHERE j.customer_id = t.customer_id AND j.created_at < $2 AND j.created_at >= t.granted_at
           AND j.kind IN ('purchase', 'balance_purchase', 'auto_renewal'))
           AND NOT EXISTS (
           SELECT FROM journals j WHERE j.customer_id = t.customer_id AND j.created_at < t.granted_at
           AND j.kind IN ('purchase', 'balance_purchase', 'auto_renewal'))) AS became
FROM trials t WHERE t.granted_at >= $1 AND t.granted_at < $2
"""
"""Of the trials that were given in this time, how many led to a customer in this time."""
