-- Limits a customer: what is counted, and the ways to count it.

-- Attempts to start the trial, refused ones included; those beyond the limit's time go with the next one.
CREATE TABLE trial_attempts (
    customer_id  bigint NOT NULL REFERENCES customers (id),
    attempted_at timestamptz NOT NULL DEFAULT atlas_now()
);
CREATE INDEX trial_attempts_customer ON trial_attempts (customer_id, attempted_at);

CREATE INDEX orders_open_by_customer ON orders (customer_id, expires_at) WHERE state = 'pending';
CREATE INDEX reissues_by_subscription ON reissues (subscription_id, requested_at);
CREATE INDEX invoices_by_order ON invoices (order_id, created_at);
