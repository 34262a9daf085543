-- What this database is, what time it is, and who works on it.

-- One row, written when the database is created. The purpose decides whether the clock may be moved and never changes.
CREATE TABLE database_identity (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    database_id  uuid NOT NULL DEFAULT gen_random_uuid(),
    purpose      text NOT NULL CHECK (purpose IN ('production', 'demo', 'test')),
    clock_offset interval NOT NULL DEFAULT '0',
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT clock_offset_needs_demo_or_test CHECK (purpose <> 'production' OR clock_offset = '0')
);

-- The migrator says the purpose in a setting of its own transaction, so that this file stays plain SQL.
INSERT INTO database_identity (purpose)
VALUES (coalesce(nullif(current_setting('atlas.purpose', true), ''), 'production'));

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER purpose_is_final BEFORE UPDATE OF purpose, database_id ON database_identity
    FOR EACH ROW WHEN (OLD.purpose IS DISTINCT FROM NEW.purpose OR OLD.database_id IS DISTINCT FROM NEW.database_id)
    EXECUTE FUNCTION refuse_change('what a database is for is decided when it is created');
CREATE TRIGGER identity_stays BEFORE DELETE ON database_identity
    FOR EACH ROW EXECUTE FUNCTION refuse_change('a database keeps its identity');
CREATE TRIGGER identity_stays_too BEFORE TRUNCATE ON database_identity
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a database keeps its identity');

-- The one clock of money, leases and expiry. PL/pgSQL, because a session plans it once.
CREATE FUNCTION atlas_now() RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN now() + (SELECT clock_offset FROM database_identity);
END
$$;

-- Who claims work. Enlisting again under a name raises the incarnation, and claims of an earlier one are free at once.
CREATE TABLE owners (
    name        text PRIMARY KEY CHECK (name <> ''),
    incarnation bigint NOT NULL CHECK (incarnation > 0),
    host        text NOT NULL,
    pid         integer NOT NULL,
    enlisted_at timestamptz NOT NULL DEFAULT atlas_now()
);

-- Work that only one process may do at a time, and the process itself in exclusive mode.
CREATE TABLE epochs (
    name        text PRIMARY KEY CHECK (name <> ''),
    epoch       bigint NOT NULL CHECK (epoch > 0),
    holder      text NOT NULL CHECK (holder <> ''),
    host        text NOT NULL,
    pid         integer NOT NULL,
    acquired_at timestamptz NOT NULL,
    renewed_at  timestamptz NOT NULL,
    held_until  timestamptz NOT NULL
);
