-- What is true of a key is true of one node: a placement says also when its node was seen without the key.

ALTER TABLE key_placements ADD COLUMN missing_since timestamptz;  -- it had confirmed the key and was seen without it; NULL again once it is back
CREATE INDEX key_placements_missing ON key_placements (node_id) WHERE missing_since IS NOT NULL;

-- Keys that this database knows and does not want there (removed, reissued, given up) are told from strangers: they wait for nothing.
ALTER TABLE key_sightings ADD COLUMN is_known boolean NOT NULL DEFAULT false;

-- As before, with what is missing on a node, and what has ended and is there again.
CREATE OR REPLACE VIEW money_i10_nodes_have_the_active AS
WITH placed AS (
    SELECT p.*, n.name FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id WHERE n.retired_at IS NULL
)
SELECT 'key:' || k.id AS subject,
       CASE WHEN k.wanted = 'present' AND p.missing_since IS NOT NULL
            THEN format('wanted present until %s; %s had it, and was seen without it since %s', s.expires_at, p.name, p.missing_since)
            ELSE format('wanted %s until %s, %s; %s has it %s until %s', k.wanted, s.expires_at, k.activation_status,
                        coalesce(p.name, 'no node'), coalesce(p.applied, 'unknown'), p.applied_expires_at) END AS problem
FROM vpn_keys k
JOIN subscriptions s ON s.id = k.subscription_id
LEFT JOIN placed p ON p.key_id = k.id
WHERE CASE WHEN k.wanted = 'present' AND s.state = 'active' AND s.expires_at > atlas_now()
           THEN k.activation_status <> 'failed'
                AND ((p.applied, p.applied_expires_at) IS DISTINCT FROM ('present', s.expires_at) OR p.missing_since IS NOT NULL)
           ELSE p.applied = 'present' AND (p.applied_expires_at IS NULL OR p.applied_expires_at > atlas_now()) END
UNION ALL
SELECT 'key:' || k.id, format('it has no place on node %s, which accepts keys', n.name)
FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
JOIN vpn_nodes n ON n.accepts_keys AND n.retired_at IS NULL
LEFT JOIN key_placements p ON p.key_id = k.id AND p.node_id = n.id
WHERE k.wanted = 'present' AND k.activation_status <> 'failed' AND s.state = 'active' AND s.expires_at > atlas_now()
  AND p.key_id IS NULL
UNION ALL
SELECT 'subscription:' || s.id, format('runs until %s, and no key is wanted for it', s.expires_at)
FROM subscriptions s
WHERE s.state = 'active' AND s.expires_at > atlas_now()
  AND NOT EXISTS (SELECT FROM vpn_keys k WHERE k.subscription_id = s.id AND k.wanted = 'present')
UNION ALL
-- Nothing was credited for it, so the access runs on without a key: a human has to know.
SELECT 'key:' || k.id, 'no node took it, its subscription runs, and no open case says so'
FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
WHERE k.activation_status = 'failed' AND s.state = 'active' AND s.expires_at > atlas_now()
  AND NOT EXISTS (SELECT FROM cases c WHERE c.key_id = k.id AND c.state = 'open')
UNION ALL
SELECT CASE WHEN s.is_known THEN 'removed:' ELSE 'stranger:' END || n.name || ':' || s.key_id,
       CASE WHEN s.is_known THEN format('%s was seen with it at %s, and it is wanted there no more', n.name, s.last_seen_at)
            ELSE format('%s has it since %s at least, and nobody wants it there', n.name, s.first_seen_at) END
FROM key_sightings s JOIN vpn_nodes n ON n.id = s.node_id
WHERE n.retired_at IS NULL AND (s.is_known OR s.first_seen_at < atlas_now() - interval '1 hour');
