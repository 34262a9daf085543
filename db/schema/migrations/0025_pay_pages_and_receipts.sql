-- Until when a pay page can be paid, and whom its receipt goes to.

ALTER TABLE invoices ADD COLUMN page_ends_at timestamptz;  -- NULL: opened before this was kept; the order's end counts

-- An e-mail address or the digits of a phone number, if the customer gave one for this purchase. It is in no log and no audit row.
ALTER TABLE orders ADD COLUMN receipt_contact text CHECK (receipt_contact <> '' AND length(receipt_contact) <= 254);
