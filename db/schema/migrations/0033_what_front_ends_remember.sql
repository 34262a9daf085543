-- What a front end remembers of a customer between two requests, so that its restart loses nothing.

-- What the customer was asked and has not answered yet; `screen` and `args` say what the answer is for, in the front end's words.
CREATE TABLE prompts (
    customer_id bigint PRIMARY KEY REFERENCES customers (id),
    screen      text NOT NULL CHECK (screen <> ''),
    args        text NOT NULL DEFAULT '',
    until       timestamptz NOT NULL
);

-- The promo code that the customer has entered and not used yet.
CREATE TABLE entered_promos (
    customer_id bigint PRIMARY KEY REFERENCES customers (id),
    code        text NOT NULL CHECK (code <> ''),
    until       timestamptz NOT NULL
);

-- Which version of the rules the customer has accepted last.
CREATE TABLE accepted_rules (
    customer_id bigint PRIMARY KEY REFERENCES customers (id),
    version     text NOT NULL CHECK (version <> ''),
    accepted_at timestamptz NOT NULL DEFAULT atlas_now()
);

-- The screen on which the customer waits for a payment to come in or a key to work; the front end changes it when that happens.
CREATE TABLE waiting_screens (
    customer_id bigint PRIMARY KEY REFERENCES customers (id),
    screen      bigint NOT NULL,
    order_id    bigint NOT NULL REFERENCES orders (id),
    waits_for   text NOT NULL CHECK (waits_for IN ('payment', 'key')),
    until       timestamptz NOT NULL
);
CREATE INDEX waiting_screens_order ON waiting_screens (order_id);
