-- Money that goes back in small parts: what of a reward's base is lost is written down also when the share of the part rounds to
-- nothing, so that the parts add up. Such a line names the journal of the refund itself, since nothing was taken back.
ALTER TABLE reward_takebacks DROP CONSTRAINT reward_takebacks_amount_check;
ALTER TABLE reward_takebacks ADD CONSTRAINT reward_takebacks_amount_check CHECK (amount >= 0);
