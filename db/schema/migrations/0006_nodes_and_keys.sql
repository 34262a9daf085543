-- VPN nodes, and the keys that workers drive them to.

CREATE TABLE vpn_nodes (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
    endpoint        jsonb NOT NULL CHECK (jsonb_typeof(endpoint) = 'object'),  -- the public facts that a link is made of
    flow            text NOT NULL DEFAULT '' CHECK (flow IN ('', 'xtls-rprx-vision')),
    inbounds        text[] NOT NULL CHECK (cardinality(inbounds) > 0),
    accepts_keys    boolean NOT NULL DEFAULT true,
    placement_order integer NOT NULL DEFAULT 100,  -- a new key goes to the accepting node with the lowest
    boot_id         text,
    last_seen_at    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT atlas_now()
);

-- Xray ignores bytes 6 and 7 of a UUID when it authenticates: two keys that differ only there are one key.
CREATE FUNCTION vless_identity(key uuid) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN overlay(key::text PLACING '0000' FROM 15 FOR 4)::uuid;

-- One row per issue of a key; while a key is re-issued, the old and the new one are wanted side by side. The generation counts every change of what is wanted, across re-issues as well, so that
-- a node can refuse what is older than what it has.
CREATE TABLE vpn_keys (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id              text NOT NULL UNIQUE CHECK (key_id ~ '^[a-z0-9]{8,40}$'),
    subscription_id     bigint NOT NULL REFERENCES subscriptions (id),
    uuid                uuid NOT NULL UNIQUE,
    generation          bigint NOT NULL CHECK (generation > 0),
    wanted              text NOT NULL CHECK (wanted IN ('present', 'absent')),
    activation_status   text NOT NULL CHECK (activation_status IN ('pending', 'active', 'failed', 'removing', 'removed')),
    activated_at        timestamptz,  -- first confirmed on a node
    pending_since       timestamptz NOT NULL DEFAULT atlas_now(),  -- since when the nodes are behind what is wanted
    next_attempt_at     timestamptz NOT NULL DEFAULT atlas_now(),
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- failures; an outage or a crash is none
    last_error          text,
    claimed_by          text,
    claimed_incarnation bigint,
    claim_epoch         bigint NOT NULL DEFAULT 0,  -- raised by every claim and by every change of what is wanted
    claim_until         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT status_follows_what_is_wanted CHECK ((wanted = 'present') = (activation_status IN ('pending', 'active', 'failed'))),
    CONSTRAINT an_active_key_was_activated CHECK (activation_status <> 'active' OR activated_at IS NOT NULL),
    CONSTRAINT a_claim_is_whole CHECK (num_nulls(claimed_by, claimed_incarnation, claim_until) IN (0, 3))
);
CREATE UNIQUE INDEX vpn_keys_one_identity ON vpn_keys (vless_identity(uuid));
CREATE INDEX vpn_keys_subscription ON vpn_keys (subscription_id, id);
CREATE INDEX vpn_keys_to_activate ON vpn_keys (next_attempt_at, id) WHERE activation_status = 'pending';
CREATE INDEX vpn_keys_to_remove ON vpn_keys (next_attempt_at, id) WHERE activation_status = 'removing';

-- Where a key lives: what each node was last confirmed to have.
CREATE TABLE key_placements (
    key_id             bigint NOT NULL REFERENCES vpn_keys (id),
    node_id            bigint NOT NULL REFERENCES vpn_nodes (id),
    applied            text NOT NULL DEFAULT 'unknown' CHECK (applied IN ('unknown', 'present', 'absent')),
    applied_generation bigint NOT NULL DEFAULT 0,
    applied_expires_at timestamptz,
    applied_boot_id    text,
    applied_at         timestamptz,
    PRIMARY KEY (key_id, node_id)
);
CREATE INDEX key_placements_node ON key_placements (node_id, key_id);
