-- What payment providers send, and the invoices that are open with them.
SELECT 1;
