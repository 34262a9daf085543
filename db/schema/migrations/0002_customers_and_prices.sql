-- Customers, the assets that money comes in, and the price list.

CREATE TABLE customers (
    id                        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    telegram_id               bigint NOT NULL UNIQUE CHECK (telegram_id > 0),
    language                  text NOT NULL DEFAULT 'ru' CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    referrer_id               bigint REFERENCES customers (id),
    is_reachable              boolean NOT NULL DEFAULT true,
    is_vip                    boolean NOT NULL DEFAULT false,
    personal_discount_percent smallint NOT NULL DEFAULT 0 CHECK (personal_discount_percent BETWEEN 0 AND 100),
    first_paid_at             timestamptz,  -- first rouble from outside: what makes a friend a paying one
    created_at                timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT no_self_referral CHECK (referrer_id <> id)
);
CREATE INDEX customers_paying_friends ON customers (referrer_id) WHERE first_paid_at IS NOT NULL;

CREATE TRIGGER referrer_is_final BEFORE UPDATE OF referrer_id ON customers
    FOR EACH ROW WHEN (OLD.referrer_id IS NOT NULL AND NEW.referrer_id IS DISTINCT FROM OLD.referrer_id)
    EXECUTE FUNCTION refuse_change('a referrer is final once set');

-- Amounts are integers in the smallest unit of an asset; digits says how many decimals that is.
CREATE TABLE assets (
    code   text PRIMARY KEY CHECK (code ~ '^[A-Z0-9]{2,12}$'),
    digits smallint NOT NULL CHECK (digits BETWEEN 0 AND 9)
);
INSERT INTO assets (code, digits) VALUES
    ('RUB', 2), ('USD', 2), ('EUR', 2), ('XTR', 0), ('USDT', 6), ('USDC', 6), ('TON', 9), ('BTC', 8), ('LTC', 8), ('ETH', 8);

CREATE TABLE tariffs (
    code    text PRIMARY KEY CHECK (code ~ '^[a-z][a-z0-9_]{0,31}$'),
    rank    smallint NOT NULL UNIQUE,  -- a higher rank is the better tariff; of several running ones it is used up first
    is_sold boolean NOT NULL DEFAULT true
);
INSERT INTO tariffs (code, rank) VALUES ('basic', 10), ('plus', 20);

CREATE TABLE prices (
    tariff   text NOT NULL REFERENCES tariffs (code),
    days     smallint NOT NULL CHECK (days > 0),
    amount   bigint NOT NULL CHECK (amount > 0),
    currency text NOT NULL DEFAULT 'RUB' REFERENCES assets (code),
    PRIMARY KEY (tariff, days)
);
INSERT INTO prices (tariff, days, amount) VALUES
    ('basic', 30, 14900), ('basic', 90, 39900), ('basic', 180, 74900), ('basic', 365, 139900),
    ('plus', 30, 29900), ('plus', 90, 69900), ('plus', 180, 119900), ('plus', 365, 229900);

CREATE TABLE promo_codes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code        text NOT NULL UNIQUE CHECK (code = lower(code) AND code <> ''),
    percent     smallint NOT NULL CHECK (percent BETWEEN 1 AND 100),
    max_uses    integer CHECK (max_uses > 0),  -- NULL: without limit
    uses        integer NOT NULL DEFAULT 0 CHECK (uses >= 0),
    valid_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT atlas_now()
);
