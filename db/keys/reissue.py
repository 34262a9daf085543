"""Reissue: a customer gets another key and link; the old one goes once the new one is on its nodes.

The new key is a row of its own with a greater generation, wanted beside the old one. Activation puts it on the nodes, and
confirming it there ends the old one in the same transaction. The subscription's end does not move. Who is revoked or
expires in between loses both keys; who pays again gets the new one. A new key that no node takes is given up
(`db.access.wanted_keys.give_up_key`) and the old one stays, now and at every later payment.
"""

from datetime import timedelta

from db.access.wanted_keys import wanted_anew
from db.customers import find_customer, lock_customers
from db.errors import BusinessError
from db.keys.claims import KeyClaim
from db.tx import Tx
from db.work.audit import record_audit
from db.work.limits import Allowance, Limit, hold_to_rate
from db.work.outbox import add_message


async def request_reissue(
    tx: Tx, telegram_id: int, *, actor: str, idempotency_key: str, allowance: Allowance | None = None
) -> str:
    """Want another key for the customer; returns its `key_id`. The old link works until the new one does.

    The same `idempotency_key` again returns the first answer. A second request before the first is done replaces the
    key that is under way as well. `allowance` holds a new one to the limit of reissues. Raises `UnknownCustomer`,
    `LimitReached`, and `BusinessError` if no subscription runs or the idempotency key stands for another customer's request.
    """
    customer = await find_customer(tx, telegram_id)
    await lock_customers(tx, [customer.id])
    first = await tx.fetchrow(
        """
        SELECT k.key_id, s.customer_id FROM reissues r
        JOIN vpn_keys k ON k.id = r.key_id JOIN subscriptions s ON s.id = r.subscription_id
        WHERE r.idempotency_key = $1
        """,
        idempotency_key,
    )
    if first is not None:
        if first["customer_id"] != customer.id:
            raise BusinessError(f"key {idempotency_key!r} already stands for another customer's reissue; use a new key")
        known: str = first["key_id"]
        return known
    subscription_id = await tx.fetchval(
        """
        SELECT id FROM subscriptions WHERE customer_id = $1 AND state = 'active' AND expires_at > atlas_now()
        ORDER BY id LIMIT 1 FOR NO KEY UPDATE
        """,
        customer.id,
    )
    if subscription_id is None:
        raise BusinessError(
            f"the customer with Telegram id {telegram_id} has no subscription that runs, so there is no key to reissue"
        )
    if allowance is not None:
        window = timedelta(seconds=allowance.limits.reissue_seconds)
        times = await tx.fetch(
            """
            SELECT r.requested_at FROM reissues r JOIN subscriptions s ON s.id = r.subscription_id
            WHERE s.customer_id = $1 AND r.requested_at > atlas_now() - $2::interval ORDER BY r.requested_at
            """,
            customer.id,
            window,
        )
        limit = Limit("new keys asked for lately", "limits.reissues", allowance.limits.reissues)
        await hold_to_rate(tx, allowance, limit, customer, [row["requested_at"] for row in times], window)
    row = await tx.fetchrow(
        """
        WITH made AS (
            INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status)
            SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), $1, gen_random_uuid(),
                   coalesce(max(generation), 0) + 1, 'present', 'pending'
            FROM vpn_keys WHERE subscription_id = $1
            RETURNING id, key_id
        ), noted AS (
            INSERT INTO reissues (idempotency_key, subscription_id, key_id, actor) SELECT $2, $1, id, $3 FROM made
        )
        SELECT made.id, made.key_id FROM made, pg_notify('atlas_wake', 'activation')
        """,
        subscription_id,
        idempotency_key,
        actor,
    )
    assert row is not None, "an insert returns its row"
    await record_audit(tx, actor, "reissue_requested", customer_id=customer.id, subject=f"key:{row['id']}")
    key_id: str = row["key_id"]
    return key_id


async def lock_keys(tx: Tx, subscription_id: int) -> None:
    """Lock a subscription's keys in their order, as everything does that changes several of them."""
    await tx.fetch("SELECT FROM vpn_keys WHERE subscription_id = $1 ORDER BY id FOR NO KEY UPDATE", subscription_id)


async def finish_reissue(tx: Tx, claim: KeyClaim) -> None:
    """The claimed key is on all its nodes: whatever it replaces is wanted no more, and the customer hears of it.

    In the transaction that confirmed the key.
    """
    replaced = await tx.fetchval(
        f"""
        WITH changed AS (
            UPDATE vpn_keys
            SET wanted = 'absent', {wanted_anew("removing")}, last_error = NULL
            WHERE subscription_id = $1 AND id < $2 AND wanted = 'present'
            RETURNING 1
        ), finished AS (
            UPDATE reissues SET finished_at = atlas_now(), result = 'replaced'
            WHERE subscription_id = $1 AND key_id <= $2 AND finished_at IS NULL
        )
        SELECT count(*) FROM changed, pg_notify('atlas_wake', 'fast_expiry')
        """,  # noqa: S608 - our own fragments
        claim.subscription_id,
        claim.key_row,
    )
    await add_message(
        tx,
        "key_reissued",
        f"key:{claim.key_row}",
        customer_id=claim.customer_id,
        payload={"expires_at": claim.expires_at.isoformat()},
    )
    await record_audit(
        tx,
        "activation",
        "key_reissued",
        customer_id=claim.customer_id,
        subject=f"key:{claim.key_row}",
        details={"replaced": replaced},
    )
