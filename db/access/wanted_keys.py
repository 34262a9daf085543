"""What is wanted of a customer's key: the rows that workers drive the nodes to.

Every change raises the key's generation and its claim epoch: a worker that still acts on the former state is fenced,
and a node refuses what is older than what it has.
"""

from typing import Literal
from uuid import UUID

from db.tx import Tx
from db.work.claims import revoked


def wanted_anew(status: Literal["pending", "removing"]) -> str:
    """SET of `vpn_keys`: workers have to bring the key to `status` from now on, newer than whatever they know of it."""
    return (
        f"activation_status = '{status}', generation = generation + 1, pending_since = atlas_now(), "
        f"next_attempt_at = atlas_now(), attempts = 0, {revoked()}"
    )


async def want_present(tx: Tx, subscription_id: int, uuid: UUID | None = None) -> str:
    """The subscription's key shall be on its nodes until the subscription's (new) end; returns the `key_id`.

    Keys that are wanted stay so. If none is, a customer who comes back gets the key they had, so that the link they kept
    works again; a removal that was still due is thereby dropped. Two kinds of keys never come back: one that no node took
    (`give_up_key`), and one that a reissue replaced. Where no other is left, a new UUID is
    made, or `uuid` taken, which a customer brings from another system. The activation worker is
    woken when the transaction commits.
    """
    key_id: str = await tx.fetchval(
        f"""
        WITH usable AS MATERIALIZED (
            SELECT id, wanted FROM vpn_keys
            WHERE subscription_id = $1 AND given_up_at IS NULL
              AND (wanted = 'present'
                   OR id >= coalesce((SELECT max(key_id) FROM reissues WHERE subscription_id = $1 AND result = 'replaced'), 0))
            ORDER BY id FOR NO KEY UPDATE
        ), known AS (
            UPDATE vpn_keys
            SET wanted = 'present', {wanted_anew("pending")}, last_error = NULL
            WHERE id IN (SELECT id FROM usable WHERE wanted = 'present')
               OR (id = (SELECT max(id) FROM usable) AND NOT EXISTS (SELECT FROM usable WHERE wanted = 'present'))
            RETURNING id, key_id
        ), dropped AS (
            UPDATE vpn_keys
            SET wanted = 'absent', {wanted_anew("removing")}
            WHERE subscription_id = $1 AND wanted = 'present' AND given_up_at IS NOT NULL
        ), made AS (
            INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status)
            SELECT 'k' || replace(gen_random_uuid()::text, '-', ''), $1, coalesce($2::uuid, gen_random_uuid()),
                   1 + coalesce((SELECT max(generation) FROM vpn_keys WHERE subscription_id = $1), 0), 'present', 'pending'
            WHERE NOT EXISTS (SELECT FROM usable)
            RETURNING id, key_id
        )
        SELECT key_id FROM (TABLE known UNION ALL TABLE made) AS key, pg_notify('atlas_wake', 'activation')
        ORDER BY id DESC LIMIT 1
        """,  # noqa: S608 - our own fragments
        subscription_id,
        uuid,
    )
    return key_id


async def give_up_key(tx: Tx, key_row: int) -> bool:
    """No node takes this key: it is never wanted again. `True`: another key of its subscription is, and goes on.

    With another one it is wanted no more at once, and the worker that removes is woken. Without one it stays wanted, as
    `failed`: what becomes of the access is the caller's to say. The caller holds the customer's row, so that of two keys
    that are given up at once the second one sees the first.
    """
    has_another: bool = await tx.fetchval(
        f"""
        WITH another AS MATERIALIZED (
            SELECT EXISTS (SELECT FROM vpn_keys other JOIN vpn_keys this ON this.subscription_id = other.subscription_id
                           WHERE this.id = $1 AND other.id <> $1 AND other.wanted = 'present'
                             AND other.given_up_at IS NULL) AS is_there
        ), given_up AS (
            UPDATE vpn_keys k
            SET given_up_at = atlas_now(), generation = k.generation + another.is_there::integer,
                wanted = CASE WHEN another.is_there THEN 'absent' ELSE k.wanted END,
                activation_status = CASE WHEN another.is_there THEN 'removing' ELSE 'failed' END,
                pending_since = CASE WHEN another.is_there THEN atlas_now() ELSE k.pending_since END,
                next_attempt_at = atlas_now(), attempts = CASE WHEN another.is_there THEN 0 ELSE k.attempts END,
                {revoked(of="k.")}
            FROM another WHERE k.id = $1
        ), finished AS (
            UPDATE reissues SET finished_at = atlas_now(), result = 'failed' WHERE key_id = $1 AND finished_at IS NULL
        )
        SELECT is_there FROM another, pg_notify('atlas_wake', 'fast_expiry')
        """,  # noqa: S608 - our own fragments
        key_row,
    )
    return has_another


async def want_absent(tx: Tx, subscription_ids: list[int]) -> int:
    """The subscriptions' keys shall be on no node; returns how many that changed and wakes the worker that removes."""
    changed: int = await tx.fetchval(
        f"""
        WITH changed AS (
            UPDATE vpn_keys
            SET wanted = 'absent', {wanted_anew("removing")}, last_error = NULL
            WHERE subscription_id = ANY($1::bigint[]) AND wanted = 'present'
            RETURNING 1
        ), counted AS (
            SELECT count(*) AS keys FROM changed
        )
        SELECT keys FROM counted, pg_notify('atlas_wake', 'fast_expiry')
        """,  # noqa: S608 - our own fragments
        subscription_ids,
    )
    return changed
