-- Nodes that converge: reissued keys, reconcile passes, canaries.

-- Set while no supervisor has the node in its configuration: nothing is placed there, and nothing waits for it.
ALTER TABLE vpn_nodes ADD COLUMN retired_at timestamptz;

-- A reconcile pass walks the keys of a node in the order in which the node lists them.
CREATE INDEX vpn_keys_by_name ON vpn_keys (key_id COLLATE "C") WHERE activation_status <> 'removed';

-- One row per node: where the reconcile pass stands, and what the last one found.
CREATE TABLE reconcile_passes (
    node_id     bigint PRIMARY KEY REFERENCES vpn_nodes (id),
    pass        bigint NOT NULL DEFAULT 1 CHECK (pass > 0),
    position    text NOT NULL DEFAULT '' COLLATE "C",  -- keys up to here were compared in this pass
    removals    integer NOT NULL DEFAULT 0 CHECK (removals >= 0),  -- in this pass
    started_at  timestamptz NOT NULL DEFAULT atlas_now(),
    finished_at timestamptz,
    verdict     text NOT NULL DEFAULT '',
    boot_id     text  -- of the node when it was compared last
);

-- Keys on a node that nobody wants there, as far as this database knows: removed only after a second sighting.
CREATE TABLE key_sightings (
    node_id       bigint NOT NULL REFERENCES vpn_nodes (id),
    key_id        text NOT NULL CHECK (key_id <> ''),
    first_seen_at timestamptz NOT NULL DEFAULT atlas_now(),
    last_seen_at  timestamptz NOT NULL DEFAULT atlas_now(),
    first_pass    bigint NOT NULL,
    last_pass     bigint NOT NULL,
    generation    bigint NOT NULL,  -- as the node has it
    PRIMARY KEY (node_id, key_id)
);

-- The canary's own key on each node: nobody's entitlement, so it is kept away from customers' keys.
CREATE TABLE canary_keys (
    node_id      bigint PRIMARY KEY REFERENCES vpn_nodes (id),
    key_id       text NOT NULL UNIQUE CHECK (key_id ~ '^canary[a-z0-9]{8,40}$'),
    uuid         uuid NOT NULL UNIQUE,
    generation   bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
    confirmed_at timestamptz,  -- the node has read it back
    created_at   timestamptz NOT NULL DEFAULT atlas_now()
);

-- A customer's key is being replaced: the old one goes once the new one is on its nodes.
CREATE TABLE reissues (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
    subscription_id bigint NOT NULL REFERENCES subscriptions (id),
    key_id          bigint NOT NULL UNIQUE REFERENCES vpn_keys (id),  -- the new one
    actor           text NOT NULL CHECK (actor <> ''),
    requested_at    timestamptz NOT NULL DEFAULT atlas_now(),
    finished_at     timestamptz,
    result          text CHECK (result IN ('replaced', 'failed')),
    CONSTRAINT finished_says_how CHECK ((finished_at IS NULL) = (result IS NULL))
);

-- As before, without what is placed on retired nodes.
CREATE OR REPLACE VIEW money_i10_nodes_have_the_active AS
SELECT 'key:' || k.id AS subject,
       format('wanted %s until %s, %s; %s has it %s until %s', k.wanted, s.expires_at, k.activation_status,
              coalesce(p.name, 'no node'), coalesce(p.applied, 'unknown'), p.applied_expires_at) AS problem
FROM vpn_keys k
JOIN subscriptions s ON s.id = k.subscription_id
LEFT JOIN (SELECT placement.*, n.name FROM key_placements placement JOIN vpn_nodes n ON n.id = placement.node_id
           WHERE n.retired_at IS NULL) AS p ON p.key_id = k.id
WHERE CASE WHEN k.wanted = 'present' AND s.state = 'active' AND s.expires_at > atlas_now()
           THEN k.activation_status <> 'failed'
                AND (p.applied, p.applied_expires_at) IS DISTINCT FROM ('present', s.expires_at)
           ELSE p.applied = 'present' AND (p.applied_expires_at IS NULL OR p.applied_expires_at > atlas_now()) END;
