-- What each quote in another asset was computed from: the rate, who said it and when, and what it had to keep to then.

CREATE TABLE rates_kept (
    order_id    bigint PRIMARY KEY REFERENCES orders (id),
    asset       text NOT NULL REFERENCES assets (code),
    currency    text NOT NULL REFERENCES assets (code),
    rate        numeric(30, 12) NOT NULL CHECK (rate > 0),  -- of `currency` for one whole unit of `asset`
    source      text NOT NULL CHECK (source <> ''),         -- the provider that said so, who set it, or the setting
    observed_at timestamptz,                                -- NULL: it is a setting, which has no age
    lowest      numeric CHECK (lowest > 0),                 -- NULL: no bound was set
    highest     numeric CHECK (highest > 0),
    max_age     interval CHECK (max_age > '0'),
    kept_at     timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT what_ages_was_observed CHECK ((observed_at IS NULL) = (max_age IS NULL))
);
CREATE TRIGGER rates_kept_are_final BEFORE UPDATE OR DELETE ON rates_kept
    FOR EACH ROW EXECUTE FUNCTION refuse_change('the rate that was used is a fact; another order has another one');
CREATE TRIGGER rates_kept_stay BEFORE TRUNCATE ON rates_kept
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the rate that was used is a fact; another order has another one');
