-- What a shop front end and a subscription link need: nonces, keys, tokens.
SELECT 1;
