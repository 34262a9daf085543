-- Money of which only the provider's words are known, and what an asset is worth.

-- One unit of it stands for whatever `stated` says.
INSERT INTO assets (code, digits) VALUES ('UNVALUED', 0);

ALTER TABLE money_in
    ADD COLUMN stated text CHECK (stated <> '' AND length(stated) <= 200),
    ADD CONSTRAINT an_unvalued_charge_keeps_the_providers_words CHECK ((asset = 'UNVALUED') = (stated IS NOT NULL)),
    ADD CONSTRAINT an_unvalued_charge_is_booked_at_nothing CHECK (asset <> 'UNVALUED' OR booked_amount = 0);
ALTER TABLE orders ADD CONSTRAINT a_quote_has_a_value CHECK (quoted_asset <> 'UNVALUED' AND price_currency <> 'UNVALUED');

-- Roubles for one whole unit, the newest of each asset. A quote refuses one that is too old or out of its bounds.
CREATE TABLE rates (
    asset    text PRIMARY KEY REFERENCES assets (code) CHECK (asset NOT IN ('RUB', 'UNVALUED')),
    rate     numeric(30, 12) NOT NULL CHECK (rate > 0),
    source   text NOT NULL CHECK (source <> ''),  -- the provider that said so, or who set it
    taken_at timestamptz NOT NULL DEFAULT atlas_now()
);
