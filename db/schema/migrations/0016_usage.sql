-- Traffic of keys: what nodes count since their last start, and what that makes since the beginning.

-- Counters are absolute, so noting one twice adds nothing. They begin at 0 with every boot of a node's Xray.
CREATE TABLE key_usage (
    key_id     bigint NOT NULL REFERENCES vpn_keys (id),
    node_id    bigint NOT NULL REFERENCES vpn_nodes (id),
    boot_id    text NOT NULL,  -- of the counters below
    uplink     bigint NOT NULL CHECK (uplink >= 0),  -- bytes in that boot, as told last
    downlink   bigint NOT NULL CHECK (downlink >= 0),
    uploaded   bigint NOT NULL CHECK (uploaded >= 0),  -- bytes since the beginning, that boot included
    downloaded bigint NOT NULL CHECK (downloaded >= 0),
    noted_at   timestamptz NOT NULL DEFAULT atlas_now(),
    PRIMARY KEY (key_id, node_id)
);
