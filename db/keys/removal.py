"""Removal of keys: marked in the database first, taken off the nodes after, confirmed last.

A customer who renews in between keeps the key: its generation and epoch have moved on, so the confirmation finds
nothing to confirm, and a node that has the newer generation refuses the older removal.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from db.billing.cases import open_case
from db.keys.activation import MAX_ATTEMPTS
from db.keys.claims import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    KeyClaim,
    NodeConfirmation,
    key_claims_from,
    record_confirmations,
    release_key_claim,
)
from db.tx import LockSpace, Tx, lock_for_transaction
from db.work.claims import Claimer, claimable, released


class RemovalResult(StrEnum):
    """What a confirmation did, given what is wanted of the key by then."""

    REMOVED = "removed"
    PARTLY = "partly"
    """Some of its nodes may still have it: it stays claimed; postpone or fail what is left."""
    ALREADY_REMOVED = "already_removed"
    DROPPED = "dropped"
    """The customer renewed meanwhile, or another worker claimed it: that goes on, this is over."""


async def claim_removals(tx: Tx, owner: Claimer, limit: int, lease_seconds: float) -> list[KeyClaim]:
    """Claim up to `limit` keys that have to leave their nodes, the longest due first; like `claim_activations`.

    A key that no node can have, because none was ever told or only retired ones were, is settled here and not returned. The
    claim names the places that may still have the key.
    """
    rows = await tx.fetch(
        f"""
        WITH now AS MATERIALIZED (
            SELECT atlas_now() AS at
        ), due AS MATERIALIZED (
            -- LIMIT 1 instead of EXISTS: the planner may answer an EXISTS here by hashing the whole table
            SELECT k.id, coalesce((SELECT true FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
                                   WHERE p.key_id = k.id AND n.retired_at IS NULL LIMIT 1), false) AS is_placed
            FROM vpn_keys k
            WHERE k.activation_status = 'removing' AND k.next_attempt_at <= (SELECT at FROM now)
              AND {claimable("(SELECT at FROM now)", of="k.")}
            ORDER BY k.next_attempt_at, k.id LIMIT $3
            FOR NO KEY UPDATE OF k SKIP LOCKED
        ), claimed AS (
            UPDATE vpn_keys k
            SET claim_epoch = k.claim_epoch + 1,
                activation_status = CASE WHEN due.is_placed THEN 'removing' ELSE 'removed' END,
                claimed_by = CASE WHEN due.is_placed THEN $1 END,
                claimed_incarnation = CASE WHEN due.is_placed THEN $2::bigint END,
                claim_until = CASE WHEN due.is_placed THEN now.at + $4::interval END
            FROM due, now WHERE k.id = due.id
            RETURNING k.*
        )
        SELECT k.id, k.key_id, k.uuid, k.generation, k.claim_epoch, s.expires_at, k.subscription_id, s.customer_id,
               k.attempts, extract(epoch FROM (SELECT at FROM now) - k.pending_since)::float8 AS waited,
               n.name AS node, n.flow, n.inbounds, false AS replaces, NULL::bigint AS new_access
        FROM claimed k
        JOIN subscriptions s ON s.id = k.subscription_id
        LEFT JOIN LATERAL (
            SELECT n.* FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
            WHERE p.key_id = k.id AND n.retired_at IS NULL AND (p.applied <> 'absent' OR p.applied_generation < k.generation)
        ) AS n ON true
        WHERE k.activation_status = 'removing'
        ORDER BY k.next_attempt_at, k.id, n.placement_order, n.id
        """,  # noqa: S608 - our own fragments
        owner.name,
        owner.incarnation,
        limit,
        timedelta(seconds=lease_seconds),
    )
    return key_claims_from(rows)


async def confirm_removal(tx: Tx, claim: KeyClaim, applied: Sequence[NodeConfirmation]) -> RemovalResult:
    """Record that these nodes have the key no more; once none of its nodes has it, it is removed, unless it is wanted again.

    Runs under the key's advisory lock.
    """
    await lock_for_transaction(tx, LockSpace.KEY, claim.key_row)
    await record_confirmations(tx, claim, applied, "absent")
    status = await tx.fetchval(
        f"""
        UPDATE vpn_keys k
        SET activation_status = CASE WHEN places.is_clear THEN 'removed' ELSE 'removing' END,
            attempts = CASE WHEN places.is_clear THEN 0 ELSE k.attempts END,
            last_error = CASE WHEN NOT places.is_clear THEN k.last_error END,
            {released(of="k.", unless="NOT places.is_clear")}
        FROM vpn_keys before, LATERAL (
            SELECT coalesce(bool_and(p.applied = 'absent' AND p.applied_generation >= before.generation), true) AS is_clear
            FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
            WHERE p.key_id = before.id AND n.retired_at IS NULL
        ) AS places
        WHERE k.id = $1 AND k.activation_status = 'removing' AND k.claim_epoch = $2 AND before.id = k.id
        RETURNING k.activation_status
        """,  # noqa: S608 - our own fragments
        claim.key_row,
        claim.epoch,
    )
    if status is not None:
        return RemovalResult.REMOVED if status == "removed" else RemovalResult.PARTLY
    status = await tx.fetchval("SELECT activation_status FROM vpn_keys WHERE id = $1", claim.key_row)
    return RemovalResult.ALREADY_REMOVED if status == "removed" else RemovalResult.DROPPED


async def postpone_removal(tx: Tx, claim: KeyClaim, delay_seconds: float, error: str) -> bool:
    """Give the claim back because the node cannot be reached; no attempt is counted. `False`: it was lost."""
    return await release_key_claim(tx, claim, delay_seconds, error)


async def fail_removal(tx: Tx, claim: KeyClaim, error: str, known_generation: int = -1) -> int | None:
    """Count a real failure and return how many there are; `None`: the claim was lost.

    A removal is never given up: it is due again after a growing, jittered delay, newer than the `known_generation` that
    a node said it has. From the fifth failure on a case `removal_failed` is open.
    """
    attempts: int | None = await tx.fetchval(
        f"""
        UPDATE vpn_keys
        SET attempts = attempts + 1, last_error = $3, generation = greatest(generation, $6 + 1),
            next_attempt_at = atlas_now()
                + CASE WHEN attempts = 0 AND $6 >= generation THEN 0  -- to be newer is all that it takes
                       ELSE least($5, $4 * 2 ^ least(attempts, 20)) * (0.5 + random() / 2) END * interval '1 second',
            {released()}
        WHERE id = $1 AND claim_epoch = $2 AND activation_status = 'removing'
        RETURNING attempts
        """,  # noqa: S608 - our own fragments
        claim.key_row,
        claim.epoch,
        error[:500],
        FIRST_RETRY_SECONDS,
        LAST_RETRY_SECONDS,
        known_generation,
    )
    if attempts is not None and attempts >= MAX_ATTEMPTS:
        await open_case(
            tx,
            "removal_failed",
            f"key:{claim.key_row}:{claim.generation}",
            customer_id=claim.customer_id,
            key_row=claim.key_row,
            details={"attempts": attempts, "error": error[:200]},
        )
    return attempts
