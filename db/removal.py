"""Removal of keys: marked in the database first, taken off the nodes after, confirmed last.

A customer who renews in between keeps the key: its generation and epoch have moved on, so the confirmation finds
nothing to confirm, and a node that has the newer generation refuses the older removal.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from db.activation import MAX_ATTEMPTS
from db.cases import open_case
from db.claims import Owner
from db.key_claims import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    Applied,
    KeyClaim,
    claims_from,
    give_back,
    note_applied,
)
from db.locks import LockSpace, lock_for_transaction
from db.tx import Tx


class RemovalResult(StrEnum):
    """How a confirmation found the key."""

    REMOVED = "removed"
    ALREADY_REMOVED = "already_removed"
    DROPPED = "dropped"
    """The customer renewed meanwhile, or somebody else claimed it: that goes on, this is over."""


async def claim_removals(tx: Tx, owner: Owner, limit: int, lease_seconds: float) -> list[KeyClaim]:
    """Claim up to ``limit`` keys that have to leave their nodes, the longest due first; like ``claim_activations``.

    A key that was never placed on any node is settled here and not returned.
    """
    rows = await tx.fetch(
        """
        WITH now AS MATERIALIZED (
            SELECT atlas_now() AS at
        ), due AS MATERIALIZED (
            -- LIMIT 1 instead of EXISTS: the planner may answer an EXISTS here by hashing the whole table
            SELECT k.id, coalesce((SELECT true FROM key_placements p WHERE p.key_id = k.id LIMIT 1), false) AS is_placed
            FROM vpn_keys k
            WHERE k.activation_status = 'removing' AND k.next_attempt_at <= (SELECT at FROM now)
              AND (k.claim_until IS NULL OR k.claim_until <= (SELECT at FROM now)
                   OR (k.claimed_by = $1 AND k.claimed_incarnation < $2))
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
               k.attempts, k.pending_since, n.name AS node, n.flow, n.inbounds
        FROM claimed k
        JOIN subscriptions s ON s.id = k.subscription_id
        JOIN key_placements p ON p.key_id = k.id
        JOIN vpn_nodes n ON n.id = p.node_id
        ORDER BY k.next_attempt_at, k.id, n.placement_order, n.id
        """,
        owner.name,
        owner.incarnation,
        limit,
        timedelta(seconds=lease_seconds),
    )
    return claims_from(rows)


async def confirm_removal(tx: Tx, claim: KeyClaim, applied: Sequence[Applied]) -> RemovalResult:
    """Record that the nodes have the key no more, unless it is wanted again. Runs under the key's advisory lock."""
    await lock_for_transaction(tx, LockSpace.KEY, claim.row)
    await note_applied(tx, claim, applied, "absent")
    tag = await tx.execute(
        """
        UPDATE vpn_keys
        SET activation_status = 'removed', attempts = 0, last_error = NULL,
            claimed_by = NULL, claimed_incarnation = NULL, claim_until = NULL
        WHERE id = $1 AND activation_status = 'removing' AND claim_epoch = $2
        """,
        claim.row,
        claim.epoch,
    )
    if tag == "UPDATE 1":
        return RemovalResult.REMOVED
    status = await tx.fetchval("SELECT activation_status FROM vpn_keys WHERE id = $1", claim.row)
    return RemovalResult.ALREADY_REMOVED if status == "removed" else RemovalResult.DROPPED


async def postpone_removal(tx: Tx, claim: KeyClaim, delay_seconds: float, error: str) -> bool:
    """Give the claim back because the node cannot be reached; no attempt is counted. ``False``: it was lost."""
    return await give_back(tx, claim, delay_seconds, error)


async def fail_removal(tx: Tx, claim: KeyClaim, error: str) -> int | None:
    """Count a real failure and return how many there are; ``None``: the claim was lost.

    A removal is never given up: it is due again after a growing, jittered delay. From the fifth failure on a case
    ``removal_failed`` is open.
    """
    attempts: int | None = await tx.fetchval(
        """
        UPDATE vpn_keys
        SET attempts = attempts + 1, last_error = $3,
            next_attempt_at = atlas_now() + least($5, $4 * 2 ^ least(attempts, 20)) * (0.5 + random() / 2) * interval '1 second',
            claimed_by = NULL, claimed_incarnation = NULL, claim_until = NULL
        WHERE id = $1 AND claim_epoch = $2 AND activation_status = 'removing'
        RETURNING attempts
        """,
        claim.row,
        claim.epoch,
        error[:500],
        FIRST_RETRY_SECONDS,
        LAST_RETRY_SECONDS,
    )
    if attempts is not None and attempts >= MAX_ATTEMPTS:
        await open_case(
            tx,
            "removal_failed",
            f"key:{claim.row}:{claim.generation}",
            customer_id=claim.customer_id,
            key_row=claim.row,
            details={"attempts": attempts, "error": error[:200]},
        )
    return attempts
