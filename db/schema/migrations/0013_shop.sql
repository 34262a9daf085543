-- What a shop front end and a subscription link need.

-- Requests of a front end that were carried out: a signed request counts once.
CREATE TABLE shop_nonces (
    key_id  text        NOT NULL CHECK (key_id <> ''),
    nonce   text        NOT NULL CHECK (nonce <> ''),
    used_at timestamptz NOT NULL DEFAULT atlas_now(),
    PRIMARY KEY (key_id, nonce)
);
CREATE INDEX shop_nonces_used_at ON shop_nonces (used_at);

-- The address under which a customer's program fetches the current links; whoever knows it is the customer.
CREATE TABLE subscription_links (
    customer_id bigint      PRIMARY KEY REFERENCES customers (id),
    token       text        NOT NULL UNIQUE CHECK (length(token) >= 32),
    created_at  timestamptz NOT NULL DEFAULT atlas_now()
);
