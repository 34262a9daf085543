-- What a customer wants to pay, and what a provider has captured.

CREATE TABLE orders (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id      bigint NOT NULL REFERENCES customers (id),
    kind             text NOT NULL CHECK (kind IN ('subscription', 'topup')),
    tariff           text REFERENCES tariffs (code),
    days             smallint CHECK (days > 0),
    list_amount      bigint NOT NULL CHECK (list_amount > 0),  -- before the discount
    discount_source  text CHECK (discount_source IN ('promo', 'vip', 'personal')),
    discount_percent smallint NOT NULL DEFAULT 0 CHECK (discount_percent BETWEEN 0 AND 100),
    promo_code_id    bigint REFERENCES promo_codes (id),
    price_amount     bigint NOT NULL CHECK (price_amount > 0),  -- what the ledger books
    price_currency   text NOT NULL DEFAULT 'RUB' REFERENCES assets (code),
    quoted_amount    bigint NOT NULL CHECK (quoted_amount > 0),  -- what the provider charges, exactly
    quoted_asset     text NOT NULL REFERENCES assets (code),
    quoted_rate      numeric(30, 12) NOT NULL CHECK (quoted_rate > 0),  -- roubles for one whole unit of the asset
    idempotency_key  text NOT NULL CHECK (idempotency_key <> ''),
    state            text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'paid', 'cancelled', 'expired')),
    paid_from        text CHECK (paid_from IN ('provider', 'balance')),
    paid_at          timestamptz,
    created_at       timestamptz NOT NULL DEFAULT atlas_now(),
    expires_at       timestamptz NOT NULL,
    CONSTRAINT orders_idempotency_key UNIQUE (customer_id, idempotency_key),
    CONSTRAINT a_subscription_has_a_plan CHECK ((kind = 'subscription') = (tariff IS NOT NULL AND days IS NOT NULL)
                                                AND (tariff IS NULL) = (days IS NULL)),
    CONSTRAINT paid_says_when_and_how CHECK ((state = 'paid') = (paid_at IS NOT NULL)
                                             AND (state = 'paid') = (paid_from IS NOT NULL)),
    CONSTRAINT promo_names_its_code CHECK ((discount_source IS NOT DISTINCT FROM 'promo') = (promo_code_id IS NOT NULL)),
    CONSTRAINT roubles_are_quoted_as_they_are CHECK (quoted_asset <> price_currency OR quoted_amount = price_amount)
);
CREATE INDEX orders_pending ON orders (expires_at) WHERE state = 'pending';

-- Matching relies on what was quoted, so a quote never changes; an order that has left `pending` by payment stays paid.
CREATE TRIGGER quote_is_final BEFORE UPDATE ON orders FOR EACH ROW
    WHEN ((OLD.id, OLD.customer_id, OLD.kind, OLD.tariff, OLD.days, OLD.price_amount, OLD.price_currency,
           OLD.quoted_amount, OLD.quoted_asset, OLD.quoted_rate, OLD.idempotency_key)
          IS DISTINCT FROM
          (NEW.id, NEW.customer_id, NEW.kind, NEW.tariff, NEW.days, NEW.price_amount, NEW.price_currency,
           NEW.quoted_amount, NEW.quoted_asset, NEW.quoted_rate, NEW.idempotency_key)
          OR (OLD.state = 'paid' AND NEW.state <> 'paid'))
    EXECUTE FUNCTION refuse_change('what was quoted and what was paid is final; open another order');
CREATE TRIGGER orders_are_kept BEFORE DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION refuse_change('orders are kept');
CREATE TRIGGER orders_stay BEFORE TRUNCATE ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('orders are kept');

CREATE TABLE money_in (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider        text NOT NULL CHECK (provider ~ '^[a-z][a-z0-9_]{0,31}$'),
    charge_id       text NOT NULL CHECK (charge_id <> ''),
    customer_id     bigint REFERENCES customers (id),  -- NULL: nobody knows whose it is; a case says so
    order_id        bigint REFERENCES orders (id),     -- the order it named, whether or not it could be matched
    amount          bigint NOT NULL CHECK (amount > 0),
    asset           text NOT NULL REFERENCES assets (code),
    booked_amount   bigint NOT NULL CHECK (booked_amount >= 0),  -- 0: the value in roubles is not known; a case says so
    booked_currency text NOT NULL DEFAULT 'RUB' REFERENCES assets (code),
    received_at     timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT one_money_in_per_charge UNIQUE (provider, charge_id),
    CONSTRAINT roubles_are_booked_as_they_are CHECK (asset <> booked_currency OR booked_amount = amount)
);
CREATE INDEX money_in_customer ON money_in (customer_id);
CREATE INDEX money_in_order ON money_in (order_id);

CREATE TRIGGER money_in_is_final BEFORE UPDATE OR DELETE ON money_in
    FOR EACH ROW EXECUTE FUNCTION refuse_change('a captured charge is a fact');
CREATE TRIGGER money_in_stays BEFORE TRUNCATE ON money_in
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a captured charge is a fact');

ALTER TABLE journals
    ADD CONSTRAINT journals_order FOREIGN KEY (order_id) REFERENCES orders (id),
    ADD CONSTRAINT journals_money_in FOREIGN KEY (money_in_id) REFERENCES money_in (id);
CREATE INDEX journals_order ON journals (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX journals_money_in ON journals (money_in_id) WHERE money_in_id IS NOT NULL;

CREATE TABLE promo_uses (
    order_id      bigint PRIMARY KEY REFERENCES orders (id),
    promo_code_id bigint NOT NULL REFERENCES promo_codes (id),
    customer_id   bigint NOT NULL REFERENCES customers (id),
    used_at       timestamptz NOT NULL DEFAULT atlas_now()
);
CREATE INDEX promo_uses_customer ON promo_uses (promo_code_id, customer_id);

CREATE TABLE referral_rewards (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    buyer_id    bigint NOT NULL REFERENCES customers (id),
    referrer_id bigint NOT NULL REFERENCES customers (id),
    money_in_id bigint NOT NULL REFERENCES money_in (id),
    journal_id  bigint NOT NULL UNIQUE REFERENCES journals (id),
    friends     integer NOT NULL CHECK (friends > 0),  -- distinct paying friends when it was granted, the buyer included
    percent     smallint NOT NULL CHECK (percent BETWEEN 1 AND 100),
    amount      bigint NOT NULL CHECK (amount > 0),
    currency    text NOT NULL REFERENCES assets (code),
    created_at  timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT one_reward_per_charge UNIQUE (buyer_id, money_in_id),
    CONSTRAINT no_reward_for_oneself CHECK (buyer_id <> referrer_id)
);
CREATE INDEX referral_rewards_referrer ON referral_rewards (referrer_id);
CREATE TRIGGER referral_rewards_are_final BEFORE UPDATE OR DELETE ON referral_rewards
    FOR EACH ROW EXECUTE FUNCTION refuse_change('a reward is a fact; correct it in the ledger');
CREATE TRIGGER referral_rewards_stay BEFORE TRUNCATE ON referral_rewards
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a reward is a fact; correct it in the ledger');

CREATE TABLE refunds (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    money_in_id     bigint NOT NULL REFERENCES money_in (id),
    journal_id      bigint NOT NULL UNIQUE REFERENCES journals (id),
    idempotency_key text NOT NULL UNIQUE,
    amount          bigint NOT NULL CHECK (amount > 0),
    currency        text NOT NULL REFERENCES assets (code),
    created_at      timestamptz NOT NULL DEFAULT atlas_now()
);
CREATE INDEX refunds_money_in ON refunds (money_in_id);
CREATE TRIGGER refunds_are_final BEFORE UPDATE OR DELETE ON refunds
    FOR EACH ROW EXECUTE FUNCTION refuse_change('a refund is a fact; correct it in the ledger');
CREATE TRIGGER refunds_stay BEFORE TRUNCATE ON refunds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a refund is a fact; correct it in the ledger');

CREATE TABLE withdrawals (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id        bigint NOT NULL REFERENCES customers (id),
    idempotency_key    text NOT NULL,
    amount             bigint NOT NULL CHECK (amount > 0),
    currency           text NOT NULL REFERENCES assets (code),
    requisites         jsonb NOT NULL,
    state              text NOT NULL DEFAULT 'reserved' CHECK (state IN ('reserved', 'paid', 'rejected')),
    reserve_journal_id bigint NOT NULL UNIQUE REFERENCES journals (id),
    settle_journal_id  bigint UNIQUE REFERENCES journals (id),  -- the payment out, or the release after a rejection
    created_at         timestamptz NOT NULL DEFAULT atlas_now(),
    settled_at         timestamptz,
    UNIQUE (customer_id, idempotency_key),
    CHECK ((state = 'reserved') = (settle_journal_id IS NULL)),
    CHECK ((state = 'reserved') = (settled_at IS NULL))
);
CREATE INDEX withdrawals_reserved ON withdrawals (created_at) WHERE state = 'reserved';
