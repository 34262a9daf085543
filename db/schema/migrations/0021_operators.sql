-- Audit entries say with which role somebody acted and by what they were recognised. Both come from the transaction, which
-- whoever opens it marks once: no statement that writes an entry can forget them. NULL: the program itself, or an entry
-- from before operators had names.
ALTER TABLE audit
    ADD COLUMN role text CHECK (role IN ('viewer', 'support', 'money', 'owner')),
    ADD COLUMN how  text CHECK (how IN ('unix', 'token', 'telegram', 'front_end'));
ALTER TABLE audit
    ALTER COLUMN role SET DEFAULT nullif(current_setting('atlas.acting_role', true), ''),
    ALTER COLUMN how  SET DEFAULT nullif(current_setting('atlas.acting_how', true), '');
