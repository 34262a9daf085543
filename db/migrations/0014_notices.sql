-- Notices: what delivery remembers.
SELECT 1;
