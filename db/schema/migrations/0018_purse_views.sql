-- The invariants of 0017_purses, in which each purse has rules of its own.

CREATE OR REPLACE VIEW money_i03_balances_equal_postings AS
SELECT 'account:' || a.id AS subject, format('balance %s, postings sum to %s', a.balance, p.amount) AS problem
FROM accounts a
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM postings WHERE account_id = a.id) AS p
WHERE a.customer_id IS NOT NULL AND a.balance IS DISTINCT FROM p.amount;

CREATE OR REPLACE VIEW money_i04_no_balance_below_floor AS
SELECT 'account:' || id AS subject,
       CASE kind WHEN 'customer' THEN format('balance %s is below the floor %s', balance, balance_floor)
                 WHEN 'debt' THEN format('a debt of %s is above zero', balance)
                 ELSE format('%s %s is below zero', kind, balance) END AS problem
FROM accounts
WHERE CASE kind WHEN 'customer' THEN balance < balance_floor WHEN 'debt' THEN balance > 0 ELSE balance < 0 END;

CREATE OR REPLACE VIEW money_i06_paid_orders_have_their_effect AS
WITH booked AS (
    SELECT order_id, count(*) FILTER (WHERE kind = 'purchase') AS purchases,
           count(*) FILTER (WHERE kind = 'balance_purchase') AS from_balance, count(*) FILTER (WHERE kind = 'topup') AS credits
    FROM journals WHERE order_id IS NOT NULL AND kind IN ('purchase', 'balance_purchase', 'topup') GROUP BY order_id
), granted AS (
    SELECT order_id, count(*) AS n FROM entitlement_events WHERE order_id IS NOT NULL GROUP BY order_id
)
SELECT 'order:' || o.id AS subject,
       format('%s order, %s, paid from %s: %s purchase and %s balance purchase journals, %s credit journals, %s entitlement events',
              o.kind, o.state, coalesce(o.paid_from, 'nothing'), coalesce(b.purchases, 0), coalesce(b.from_balance, 0),
              coalesce(b.credits, 0), coalesce(g.n, 0)) AS problem
FROM orders o
LEFT JOIN booked b ON b.order_id = o.id
LEFT JOIN granted g ON g.order_id = o.id
WHERE coalesce(b.purchases, 0) <> (o.state = 'paid' AND o.kind = 'subscription' AND o.paid_from = 'provider')::integer
   OR coalesce(b.from_balance, 0) <> (o.state = 'paid' AND o.kind = 'subscription' AND o.paid_from = 'balance')::integer
   OR coalesce(b.credits, 0) <> (o.state = 'paid' AND o.kind = 'topup')::integer
   OR coalesce(g.n, 0) <> (o.state = 'paid' AND o.kind = 'subscription')::integer
UNION ALL
SELECT 'journal:' || id, format('a %s journal of no order', kind)
FROM journals WHERE order_id IS NULL AND kind IN ('purchase', 'balance_purchase', 'topup')
UNION ALL
SELECT 'event:' || id, format('access was extended by a %s that no order stands for', source)
FROM entitlement_events WHERE order_id IS NULL AND kind = 'grant' AND source IN ('payment', 'balance')
UNION ALL
-- The order, its journal and what was granted say the same.
SELECT 'event:' || e.id,
       format('order %s: %s %s d for %s from %s; granted %s %s by %s, booked %s by a %s journal', o.id, o.tariff, o.days,
              o.price_amount, o.paid_from, e.tariff, e.period, e.source, p.amount, coalesce(j.kind, 'missing'))
FROM entitlement_events e
JOIN orders o ON o.id = e.order_id
LEFT JOIN journals j ON j.id = e.journal_id
LEFT JOIN postings p ON p.journal_id = e.journal_id AND p.account_id IN (SELECT id FROM accounts WHERE kind = 'revenue')
WHERE e.kind <> 'grant' OR e.tariff IS DISTINCT FROM o.tariff OR e.period IS DISTINCT FROM make_interval(days => o.days)
   OR e.source <> CASE o.paid_from WHEN 'balance' THEN 'balance' ELSE 'payment' END
   OR (e.money_in_id IS NOT NULL) <> (o.paid_from = 'provider')
   OR j.order_id IS DISTINCT FROM o.id OR j.customer_id IS DISTINCT FROM o.customer_id
   OR j.money_in_id IS DISTINCT FROM e.money_in_id OR p.amount IS DISTINCT FROM o.price_amount
UNION ALL
-- A top-up is outside money that has bought nothing yet.
SELECT 'journal:' || j.id, format('credits %s to the account %s of customer %s for order %s of %s by customer %s',
                                  p.amount, a.kind, a.customer_id, o.id, o.price_amount, o.customer_id)
FROM journals j JOIN orders o ON o.id = j.order_id
JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
WHERE j.kind = 'topup' AND a.customer_id IS NOT NULL
  AND (p.amount <> o.price_amount OR a.customer_id <> o.customer_id OR a.kind NOT IN ('paid', 'customer'))
UNION ALL
SELECT 'order:' || o.id, 'paid with a promo code that was not counted, or counted without being paid'
FROM orders o LEFT JOIN promo_uses u ON u.order_id = o.id
WHERE (o.state = 'paid' AND o.promo_code_id IS NOT NULL) <> (u.order_id IS NOT NULL)
   OR u.promo_code_id <> o.promo_code_id OR u.customer_id <> o.customer_id
UNION ALL
SELECT 'promo_code:' || c.id, format('counts %s uses, %s are written down', c.uses, coalesce(used.n, 0))
FROM promo_codes c LEFT JOIN (SELECT promo_code_id, count(*) AS n FROM promo_uses GROUP BY promo_code_id) AS used
    ON used.promo_code_id = c.id
WHERE c.uses <> coalesce(used.n, 0);

-- Rewards from before 0017 (without a purchase's journal) follow the charge that they were given for; those since then follow
-- outside money that bought access.
CREATE OR REPLACE VIEW money_i07_rewards_follow_purchases AS
WITH leg AS (
    SELECT p.journal_id, j.kind AS journal_kind, a.kind, a.customer_id, sum(p.amount) AS amount
    FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
    WHERE j.kind IN ('balance_purchase', 'auto_renewal', 'topup', 'payment_credit', 'case_credit', 'referral_reward',
                     'referral_clawback')
    GROUP BY p.journal_id, j.kind, a.kind, a.customer_id
), friends AS (
    SELECT referrer_id, count(*) AS n FROM customers WHERE referrer_id IS NOT NULL GROUP BY referrer_id
), given AS (
    SELECT journal_id, customer_id, sum(amount) AS amount, bool_or(kind = 'customer') AS is_old
    FROM leg WHERE journal_kind = 'referral_reward' AND customer_id IS NOT NULL GROUP BY journal_id, customer_id
), spent AS (
    SELECT j.id, j.customer_id, j.money_in_id, -leg.amount AS outside,
           sum(-leg.amount) OVER (PARTITION BY j.customer_id ORDER BY j.id) AS sum_of_outside
    FROM leg JOIN journals j ON j.id = leg.journal_id
    WHERE leg.journal_kind IN ('balance_purchase', 'auto_renewal') AND leg.kind = 'paid'
), brought AS (
    -- What was rewarded when it came in, less what of it went back since.
    SELECT spent.id, greatest(0, o.rewarded_paid - coalesce(sum(f.amount), 0)) AS rewarded
    FROM spent JOIN purse_openings o ON o.customer_id = spent.customer_id AND o.rewarded_paid > 0
    LEFT JOIN (refunds f JOIN journals back ON back.id = f.journal_id
               JOIN referral_rewards was ON was.money_in_id = f.money_in_id AND was.spending_journal_id IS NULL
               JOIN journals came ON came.money_in_id = f.money_in_id AND came.kind IN ('topup', 'payment_credit', 'case_credit'))
        ON back.customer_id = spent.customer_id AND f.journal_id > o.last_journal AND f.journal_id < spent.id
    GROUP BY spent.id, o.rewarded_paid
), bought AS (
    SELECT j.id, j.customer_id, j.money_in_id, m.booked_amount::numeric AS base
    FROM journals j JOIN money_in m ON m.id = j.money_in_id WHERE j.kind = 'purchase'
    UNION ALL
    SELECT spent.id, spent.customer_id, spent.money_in_id,
           greatest(0, sum_of_outside - coalesce(brought.rewarded, 0))
           - greatest(0, sum_of_outside - outside - coalesce(brought.rewarded, 0))
    FROM spent LEFT JOIN brought ON brought.id = spent.id
), credited AS (
    SELECT m.id AS money_in_id, m.booked_amount, leg.customer_id
    FROM leg JOIN journals j ON j.id = leg.journal_id JOIN money_in m ON m.id = j.money_in_id
    WHERE leg.journal_kind IN ('topup', 'payment_credit', 'case_credit') AND leg.kind = 'customer'
), back AS (
    SELECT reward_id, sum(amount) AS amount FROM reward_takebacks GROUP BY reward_id
)
SELECT 'reward:' || r.id AS subject,
       format('reward of %s (%s %% of %s for %s friends) for journal %s, which brought %s to be rewarded; buyer %s, referrer %s',
              r.amount, r.percent, r.base, r.friends, r.spending_journal_id, bought.base, r.buyer_id, r.referrer_id) AS problem
FROM referral_rewards r
JOIN customers buyer ON buyer.id = r.buyer_id
LEFT JOIN bought ON bought.id = r.spending_journal_id
LEFT JOIN friends ON friends.referrer_id = r.referrer_id
LEFT JOIN given ON given.journal_id = r.journal_id
WHERE r.spending_journal_id IS NOT NULL
  AND (bought.customer_id IS DISTINCT FROM r.buyer_id OR bought.money_in_id IS DISTINCT FROM r.money_in_id
       OR bought.base IS DISTINCT FROM r.base::numeric
       OR buyer.referrer_id IS DISTINCT FROM r.referrer_id OR r.buyer_id = r.referrer_id
       OR r.percent <> referral_percent(r.friends) OR r.friends > coalesce(friends.n, 0)
       OR r.amount <> r.base * r.percent / 100
       OR (given.customer_id, given.amount) IS DISTINCT FROM (r.referrer_id, r.amount::numeric))
UNION ALL
SELECT 'reward:' || r.id,
       format('reward of %s (%s %% for %s friends) for money_in %s, buyer %s, referrer %s, given %s', r.amount, r.percent, r.friends,
              r.money_in_id, r.buyer_id, r.referrer_id, CASE WHEN given.is_old THEN 'then' ELSE 'since rewards follow purchases' END)
FROM referral_rewards r
JOIN money_in m ON m.id = r.money_in_id
JOIN customers buyer ON buyer.id = r.buyer_id
LEFT JOIN friends ON friends.referrer_id = r.referrer_id
LEFT JOIN given ON given.journal_id = r.journal_id
WHERE r.spending_journal_id IS NULL
  AND (coalesce(m.customer_id, (SELECT j.customer_id FROM journals j WHERE j.money_in_id = m.id AND j.kind = 'case_credit'))
           IS DISTINCT FROM r.buyer_id
       OR buyer.referrer_id IS DISTINCT FROM r.referrer_id OR r.buyer_id = r.referrer_id
       OR r.percent <> referral_percent(r.friends) OR r.friends > coalesce(friends.n, 0)
       OR r.amount <> m.booked_amount * r.percent / 100
       OR given.is_old IS NOT TRUE
       OR (given.customer_id, given.amount) IS DISTINCT FROM (r.referrer_id, r.amount::numeric))
UNION ALL
-- Ten kopecks are the least of which the least share is one.
SELECT 'journal:' || bought.id, format('customer %s bought for %s from outside, and the referrer %s got no reward',
                                       bought.customer_id, bought.base, c.referrer_id)
FROM bought JOIN customers c ON c.id = bought.customer_id
WHERE c.referrer_id IS NOT NULL AND bought.base >= 10
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.spending_journal_id = bought.id)
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.spending_journal_id IS NULL AND r.money_in_id = bought.money_in_id)
UNION ALL
SELECT 'money_in:' || credited.money_in_id, format('customer %s brought in %s, and the referrer %s got no reward',
                                                   credited.customer_id, credited.booked_amount, c.referrer_id)
FROM credited JOIN customers c ON c.id = credited.customer_id
WHERE c.referrer_id IS NOT NULL AND credited.booked_amount >= 10
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.money_in_id = credited.money_in_id)
UNION ALL
SELECT 'journal:' || j.id, 'a reward journal without its reward'
FROM journals j WHERE j.kind = 'referral_reward' AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.journal_id = j.id)
UNION ALL
SELECT 'money_in:' || money_in_id, format('%s rewards', count(*)) FROM referral_rewards WHERE money_in_id IS NOT NULL
GROUP BY money_in_id HAVING count(*) > 1
UNION ALL
SELECT 'reward:' || r.id, format('reward of %s, %s of it taken back', r.amount, back.amount)
FROM referral_rewards r JOIN back ON back.reward_id = r.id
WHERE back.amount > r.amount
UNION ALL
SELECT 'journal:' || leg.journal_id, format('took back %s, written down are %s', leg.amount, coalesce(t.amount, 0))
FROM leg LEFT JOIN (SELECT journal_id, sum(amount) AS amount FROM reward_takebacks GROUP BY journal_id) AS t
    ON t.journal_id = leg.journal_id
WHERE leg.journal_kind = 'referral_clawback' AND leg.kind = 'referral_expense' AND leg.amount IS DISTINCT FROM t.amount
UNION ALL
SELECT 'journal:' || j.id, 'a reward was taken back without a refund'
FROM journals j
WHERE j.kind = 'referral_clawback'
  AND NOT EXISTS (SELECT FROM refunds f WHERE f.clawback_journal_id = j.id AND f.money_in_id = j.money_in_id);

-- Which journal may move which purse, and in which direction.
CREATE VIEW money_i14_purses_follow_rules AS
WITH allowed (journal, purse, direction) AS (
    VALUES ('topup', 'paid', 1), ('payment_credit', 'paid', 1), ('case_credit', 'paid', 1), ('case_credit', 'credit', 1),
           ('compensation', 'credit', 1), ('admin_adjust', 'credit', 1), ('admin_adjust', 'credit', -1),
           ('admin_adjust', 'earned', -1), ('referral_reward', 'debt', 1), ('referral_reward', 'earned', 1),
           ('referral_clawback', 'earned', -1), ('referral_clawback', 'debt', -1), ('withdrawal_reserve', 'earned', -1),
           ('withdrawal_release', 'earned', 1), ('withdrawal_release', 'paid', 1), ('withdrawal_release', 'credit', 1),
           ('refund', 'paid', -1), ('refund', 'credit', -1), ('refund', 'debt', -1),
           ('balance_purchase', 'paid', -1), ('balance_purchase', 'credit', -1),
           ('balance_purchase', 'earned', -1), ('auto_renewal', 'paid', -1), ('auto_renewal', 'credit', -1),
           ('auto_renewal', 'earned', -1), ('purse_split', 'paid', 1), ('purse_split', 'credit', 1),
           ('purse_split', 'earned', 1), ('purse_split', 'debt', -1)
), purse AS (
    SELECT p.journal_id, j.kind AS journal, j.customer_id AS journal_customer, a.kind AS purse, a.customer_id, p.amount
    FROM postings p JOIN accounts a ON a.id = p.account_id JOIN journals j ON j.id = p.journal_id
    WHERE a.kind IN ('paid', 'credit', 'earned', 'debt')
), part AS (
    SELECT journal_id, journal, sum(amount) FILTER (WHERE purse = 'paid') AS paid,
           sum(amount) FILTER (WHERE purse = 'credit') AS credit, sum(amount) FILTER (WHERE purse = 'earned') AS earned,
           sum(amount) FILTER (WHERE purse = 'debt') AS debt
    FROM purse WHERE journal IN ('case_credit', 'withdrawal_release', 'purse_split') GROUP BY journal_id, journal
)
SELECT 'journal:' || purse.journal_id AS subject,
       format('a %s moves %s by %s', purse.journal, purse.purse, purse.amount) AS problem
FROM purse LEFT JOIN allowed USING (journal, purse)
GROUP BY purse.journal_id, purse.journal, purse.purse, purse.amount
HAVING bool_and(allowed.direction IS NULL OR sign(purse.amount) <> allowed.direction)
UNION ALL
SELECT 'journal:' || journal_id, format('a %s of customer %s moves %s of customer %s', journal, journal_customer, purse, customer_id)
FROM purse WHERE journal_customer <> customer_id
UNION ALL
-- What a provider captured is outside money; a value that an operator put on it is a credit.
SELECT 'journal:' || part.journal_id, format('a case was credited %s to paid and %s to credit from %s', coalesce(part.paid, 0),
                                             coalesce(part.credit, 0), a.kind)
FROM part JOIN postings p ON p.journal_id = part.journal_id JOIN accounts a ON a.id = p.account_id
WHERE part.journal = 'case_credit' AND a.customer_id IS NULL
  AND (part.paid IS NOT NULL) <> (a.kind = 'suspense')
UNION ALL
SELECT 'withdrawal:' || w.id, format('gave back %s to paid and %s to credit, it took %s and %s', coalesce(part.paid, 0),
                                     coalesce(part.credit, 0), w.from_paid, w.from_credit)
FROM withdrawals w JOIN part ON part.journal_id = w.settle_journal_id
WHERE (coalesce(part.paid, 0), coalesce(part.credit, 0)) <> (w.from_paid::numeric, w.from_credit::numeric)
UNION ALL
SELECT 'customer:' || o.customer_id, format('brought %s, %s, %s and %s; the journal says %s, %s, %s and %s', o.paid, o.credit, o.earned,
                                            o.debt, part.paid, part.credit, part.earned, part.debt)
FROM purse_openings o LEFT JOIN part ON part.journal_id = o.journal_id
WHERE (o.paid, o.credit, o.earned, o.debt) IS DISTINCT FROM
      (coalesce(part.paid, 0)::bigint, coalesce(part.credit, 0)::bigint, coalesce(part.earned, 0)::bigint, coalesce(part.debt, 0)::bigint)
UNION ALL
SELECT 'journal:' || j.id, 'purses were filled that no customer brought along'
FROM journals j WHERE j.kind = 'purse_split' AND NOT EXISTS (SELECT FROM purse_openings o WHERE o.journal_id = j.id)
UNION ALL
SELECT 'account:' || a.id, format('still holds %s, although purses have replaced it', a.balance)
FROM accounts a
WHERE a.kind = 'customer' AND a.balance <> 0
  AND EXISTS (SELECT FROM moving_over WHERE step = 'purses' AND done_at IS NOT NULL);
