-- Notices: what delivery remembers.

-- When the customer was last heard of: that a message was refused says nothing about whoever has written since.
ALTER TABLE customers ADD COLUMN contacted_at timestamptz NOT NULL DEFAULT atlas_now();

CREATE FUNCTION note_contact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.contacted_at := atlas_now();
    RETURN NEW;
END
$$;
CREATE TRIGGER contact_is_noted BEFORE UPDATE OF is_reachable ON customers
    FOR EACH ROW WHEN (NEW.is_reachable) EXECUTE FUNCTION note_contact();
