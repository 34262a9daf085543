-- Facts that no row held: which price, which rank, which code, which discount, which inviter and which owner was true when.

-- One row for each value that the row of a list, a customer, a key or a link had, written by triggers, so that no operation
-- has to know. Secrets are kept as digests.
CREATE TABLE row_facts (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation text NOT NULL CHECK (relation <> ''),
    row_key  text NOT NULL CHECK (row_key <> ''),
    fact     jsonb NOT NULL CHECK (jsonb_typeof(fact) = 'object'),
    noted_at timestamptz NOT NULL DEFAULT atlas_now()
);
CREATE INDEX row_facts_row ON row_facts (relation, row_key, id);
CREATE TRIGGER row_facts_are_final BEFORE UPDATE OR DELETE ON row_facts
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what was true is a fact; a change adds a row');
CREATE TRIGGER row_facts_stay BEFORE TRUNCATE ON row_facts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what was true is a fact; a change adds a row');

-- The arguments: the columns that name the row, then `=`, then those that are the fact; `#column` is kept as a digest.
CREATE FUNCTION fact_of(found jsonb, columns text[]) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(ltrim(name, '#'),
        CASE WHEN name LIKE '#%' THEN to_jsonb(encode(sha256(convert_to(found ->> ltrim(name, '#'), 'UTF8')), 'hex'))
             ELSE found -> name END), '{}')
    FROM unnest(columns) AS name
$$;
CREATE FUNCTION key_of(found jsonb, columns text[]) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(found ->> name, ':' ORDER BY place) FROM unnest(columns) WITH ORDINALITY AS named (name, place)
$$;
CREATE FUNCTION note_fact() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    arguments text[] := ARRAY(SELECT unnest(TG_ARGV));  -- begins at 1, unlike TG_ARGV
    split     integer := array_position(arguments, '=');
    columns   text[] := arguments[split + 1:];
    new_fact  jsonb;
    gone      jsonb := '{"gone": true}';
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO row_facts (relation, row_key, fact)
        VALUES (TG_TABLE_NAME, key_of(to_jsonb(OLD), arguments[:split - 1]), gone);
        RETURN NULL;
    END IF;
    new_fact := fact_of(to_jsonb(NEW), columns);
    IF TG_OP = 'INSERT' OR new_fact IS DISTINCT FROM fact_of(to_jsonb(OLD), columns) THEN
        INSERT INTO row_facts (relation, row_key, fact)
        VALUES (TG_TABLE_NAME, key_of(to_jsonb(NEW), arguments[:split - 1]), new_fact);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER facts_are_noted AFTER INSERT OR UPDATE OR DELETE ON prices
    FOR EACH ROW EXECUTE FUNCTION note_fact('tariff', 'days', '=', 'amount', 'currency');
CREATE TRIGGER facts_are_noted AFTER INSERT OR UPDATE OR DELETE ON tariffs
    FOR EACH ROW EXECUTE FUNCTION note_fact('code', '=', 'rank', 'is_sold');
CREATE TRIGGER facts_are_noted AFTER INSERT OR UPDATE OR DELETE ON assets
    FOR EACH ROW EXECUTE FUNCTION note_fact('code', '=', 'digits');
CREATE TRIGGER facts_are_noted AFTER INSERT OR UPDATE OR DELETE ON promo_codes
    FOR EACH ROW EXECUTE FUNCTION note_fact('id', '=', 'code', 'percent', 'max_uses', 'valid_until');
CREATE TRIGGER facts_are_noted AFTER INSERT OR DELETE OR UPDATE OF telegram_id, referrer_id, is_vip, personal_discount_percent
    ON customers FOR EACH ROW
    EXECUTE FUNCTION note_fact('id', '=', 'telegram_id', 'referrer_id', 'is_vip', 'personal_discount_percent');
CREATE TRIGGER facts_are_noted AFTER INSERT OR DELETE OR UPDATE OF subscription_id, uuid, key_id ON vpn_keys
    FOR EACH ROW EXECUTE FUNCTION note_fact('id', '=', 'subscription_id', 'key_id', '#uuid');
CREATE TRIGGER facts_are_noted AFTER INSERT OR UPDATE OR DELETE ON subscription_links
    FOR EACH ROW EXECUTE FUNCTION note_fact('customer_id', '=', '#token');

-- What is there now is known from now on.
INSERT INTO row_facts (relation, row_key, fact)
SELECT 'prices', tariff || ':' || days, fact_of(to_jsonb(p), '{amount,currency}') FROM prices p
UNION ALL SELECT 'tariffs', code, fact_of(to_jsonb(t), '{rank,is_sold}') FROM tariffs t
UNION ALL SELECT 'assets', code, fact_of(to_jsonb(a), '{digits}') FROM assets a
UNION ALL SELECT 'promo_codes', id::text, fact_of(to_jsonb(p), '{code,percent,max_uses,valid_until}') FROM promo_codes p
UNION ALL SELECT 'customers', id::text,
    fact_of(to_jsonb(c), '{telegram_id,referrer_id,is_vip,personal_discount_percent}') FROM customers c
UNION ALL SELECT 'vpn_keys', id::text, fact_of(to_jsonb(k), '{subscription_id,key_id,#uuid}') FROM vpn_keys k
UNION ALL SELECT 'subscription_links', customer_id::text, fact_of(to_jsonb(l), '{#token}') FROM subscription_links l;

-- How far the auditor has looked and found nothing: a digest of the rows of each part, and of the line itself.
CREATE TABLE audited_parts (
    part       text PRIMARY KEY CHECK (part <> ''),
    last_id    bigint NOT NULL CHECK (last_id >= 0),
    rows       bigint NOT NULL CHECK (rows >= 0),
    digest     text NOT NULL,
    seal       text NOT NULL,
    audited_at timestamptz NOT NULL DEFAULT atlas_now()
);
