"""What is wanted of a customer's key: the rows that workers drive the nodes to.

Every change raises the key's generation and its claim epoch: a worker that still acts on the former state is fenced,
and a node refuses what is older than what it has.
"""

from db.tx import Tx


async def want_present(tx: Tx, subscription_id: int) -> str:
    """The subscription's key shall be on its nodes until the subscription's (new) end; returns the ``key_id``.

    A customer who comes back gets the key they had, so that the link they kept works again; a removal that was still
    due is thereby dropped. A new UUID is made only for a subscription without any key. The activation worker is woken
    when the transaction commits.
    """
    key_id: str = await tx.fetchval(
        """
        WITH known AS (
            UPDATE vpn_keys
            SET wanted = 'present', activation_status = 'pending', generation = generation + 1,
                pending_since = atlas_now(), next_attempt_at = atlas_now(), attempts = 0, last_error = NULL,
                claim_epoch = claim_epoch + 1, claimed_by = NULL, claimed_incarnation = NULL, claim_until = NULL
            WHERE subscription_id = $1
              AND (wanted = 'present' OR id = (SELECT max(id) FROM vpn_keys WHERE subscription_id = $1))
            RETURNING id, key_id
        ), made AS (
            INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status)
            SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), $1, gen_random_uuid(), 1, 'present', 'pending'
            WHERE NOT EXISTS (SELECT FROM vpn_keys WHERE subscription_id = $1)
            RETURNING id, key_id
        )
        SELECT key_id FROM (TABLE known UNION ALL TABLE made) AS key, pg_notify('atlas_wake', 'activation')
        ORDER BY id DESC LIMIT 1
        """,
        subscription_id,
    )
    return key_id


async def want_absent(tx: Tx, subscription_ids: list[int]) -> int:
    """The subscriptions' keys shall be on no node; returns how many that changed and wakes the worker that removes."""
    changed: int = await tx.fetchval(
        """
        WITH changed AS (
            UPDATE vpn_keys
            SET wanted = 'absent', activation_status = 'removing', generation = generation + 1,
                pending_since = atlas_now(), next_attempt_at = atlas_now(), attempts = 0, last_error = NULL,
                claim_epoch = claim_epoch + 1, claimed_by = NULL, claimed_incarnation = NULL, claim_until = NULL
            WHERE subscription_id = ANY($1::bigint[]) AND wanted = 'present'
            RETURNING 1
        ), counted AS (
            SELECT count(*) AS keys FROM changed
        )
        SELECT keys FROM counted, pg_notify('atlas_wake', 'fast_expiry')
        """,
        subscription_ids,
    )
    return changed
