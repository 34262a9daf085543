-- A node has one owner: a chain of nonces, each of which the node takes only from who knows the one before.

-- The nonces of each node, newest last. One is written down before the node hears of it (`pending`), so that a crash in between leaves
-- a row that is said again, never a nonce that nobody knows.
CREATE TABLE node_nonces (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id    bigint NOT NULL REFERENCES vpn_nodes (id),
    nonce      uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    is_pending boolean NOT NULL DEFAULT true,
    -- an operator's word that this installation is to rule the node, whoever did before; `code` as the node's host printed it
    is_taking  boolean NOT NULL DEFAULT false,
    code       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT atlas_now(),
    taken_at   timestamptz,
    -- how many changes old the node's state was when it took this one, if it came back from a backup
    restored_from integer CHECK (restored_from >= 0),
    CONSTRAINT a_taken_nonce_says_when CHECK (is_pending = (taken_at IS NULL))
);
CREATE INDEX node_nonces_node ON node_nonces (node_id, id);
CREATE UNIQUE INDEX one_pending_nonce ON node_nonces (node_id) WHERE is_pending;
