-- Keys that no node takes, and the invariants that were blind in one direction.

-- When the nodes' refusals ended the tries for good: such a key never comes back.
ALTER TABLE vpn_keys ADD COLUMN given_up_at timestamptz;
UPDATE vpn_keys k SET given_up_at = atlas_now()
WHERE activation_status = 'failed'
   OR (wanted = 'absent' AND (EXISTS (SELECT FROM reissues r WHERE r.key_id = k.id AND r.result = 'failed')
                              OR (activated_at IS NULL AND EXISTS (SELECT FROM cases c WHERE c.key_id = k.id
                                                                   AND c.kind = 'activation_failed'))));
