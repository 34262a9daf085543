"""Activation of keys in three phases: claim (a short transaction), tell the nodes (no transaction), confirm or give back.

A claim is a lease on database time with an epoch. Everything that changes what is wanted of the key, and every later
claim, raises the epoch; so a worker that comes back with an old one changes nothing that matters.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import attrs

from db.access.undelivered import find_undelivered, note_delivery
from db.access.wanted_keys import give_up_key, wanted_anew
from db.billing.cases import open_case
from db.billing.compensation import compensate, lock_for_compensation
from db.keys.claims import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    KeyClaim,
    NodeConfirmation,
    key_claims_from,
    record_confirmations,
    release_key_claim,
)
from db.keys.reissue import finish_reissue, lock_keys
from db.tx import LockSpace, Tx, lock_for_transaction
from db.work.claims import Claimer, claimable, claimed, released
from db.work.outbox import add_message

MAX_ATTEMPTS = 5
"""Real failures after which a key is given up; an outage or a crash is none."""


class ActivationResult(StrEnum):
    """What a confirmation did, given what is wanted of the key by then."""

    ACTIVATED = "activated"
    """It was pending and is active now, because of this confirmation."""
    PARTLY = "partly"
    """Some of its nodes do not have it yet: it stays pending and claimed; postpone or fail what is left."""
    ALREADY_ACTIVE = "already_active"
    """It was confirmed before; nothing is left to do."""
    SUPERSEDED = "superseded"
    """Something newer is wanted of it, or another worker claimed it: that claim goes on."""
    UNWANTED = "unwanted"
    """It is not wanted any more: what the node has now is surplus, and its removal is queued."""


class FailureResult(StrEnum):
    """What becomes of a key after a reported failure."""

    RETRY = "retry"
    GAVE_UP = "gave_up"
    """Terminal: a case is open, the operator is told."""
    LOST = "lost"
    """Another worker had claimed the key by then; nothing was written."""


@attrs.frozen
class ActivationOutcome:
    """The result of a confirmation, with the key's first activation and the subscription's end."""

    result: ActivationResult
    activated_at: datetime | None
    expires_at: datetime


async def claim_activations(tx: Tx, owner: Claimer, limit: int, lease_seconds: float) -> list[KeyClaim]:
    """Claim up to `limit` due keys for `lease_seconds` of database time, the longest due first, in one statement.

    Skipped: keys on which a worker is at work (claims of an earlier incarnation of `owner` do not count), whose
    subscription has ended, or for which there is no node yet. A key belongs on every accepting node and is placed where
    it has no place yet; the claim names the places that do not have this generation of it, or lost it, which may be none. Commit
    before telling any node.
    """
    rows = await tx.fetch(
        f"""
        WITH now AS MATERIALIZED (
            SELECT atlas_now() AS at
        ), target AS MATERIALIZED (
            SELECT id FROM vpn_nodes WHERE accepts_keys AND retired_at IS NULL
        ), due AS MATERIALIZED (
            SELECT k.id FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
            WHERE k.activation_status = 'pending' AND k.next_attempt_at <= (SELECT at FROM now)
              AND {claimable("(SELECT at FROM now)", of="k.")}
              AND s.expires_at > (SELECT at FROM now)
              -- LIMIT 1 instead of EXISTS: the planner may answer an EXISTS here by hashing the whole table
              AND (EXISTS (SELECT FROM target)
                   OR (SELECT true FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
                       WHERE p.key_id = k.id AND n.retired_at IS NULL LIMIT 1))
            ORDER BY k.next_attempt_at, k.id LIMIT $3
            FOR NO KEY UPDATE OF k SKIP LOCKED
        ), claimed AS (
            UPDATE vpn_keys k
            SET {claimed("now.at + $4::interval", of="k.")}
            FROM due, now WHERE k.id = due.id
            RETURNING k.*
        ), placed AS (
            INSERT INTO key_placements (key_id, node_id)
            SELECT claimed.id, target.id FROM claimed, target
            ON CONFLICT (key_id, node_id) DO NOTHING
            RETURNING key_id, node_id
        ), places AS (
            SELECT p.key_id, n.* FROM claimed
            JOIN key_placements p ON p.key_id = claimed.id JOIN vpn_nodes n ON n.id = p.node_id
            WHERE n.retired_at IS NULL
              AND (p.applied <> 'present' OR p.applied_generation < claimed.generation OR p.missing_since IS NOT NULL)
            UNION ALL SELECT placed.key_id, n.* FROM placed JOIN vpn_nodes n ON n.id = placed.node_id
        )
        SELECT k.id, k.key_id, k.uuid, k.generation, k.claim_epoch, s.expires_at, k.subscription_id, s.customer_id,
               k.attempts, extract(epoch FROM (SELECT at FROM now) - k.pending_since)::float8 AS waited,
               n.name AS node, n.flow, n.inbounds,
               coalesce((SELECT true FROM reissues r WHERE r.key_id = k.id AND r.finished_at IS NULL LIMIT 1), false) AS replaces,
               (SELECT e.id
                FROM (SELECT id, source FROM entitlement_events
                      WHERE subscription_id = k.subscription_id AND kind = 'grant'
                        AND (previous_end IS NULL OR previous_end <= created_at)
                      ORDER BY position DESC LIMIT 1) AS e
                WHERE e.source IN ('payment', 'balance', 'auto_renewal')
                  AND NOT EXISTS (SELECT FROM first_placements WHERE event_id = e.id)) AS new_access
        FROM claimed k
        JOIN subscriptions s ON s.id = k.subscription_id
        LEFT JOIN places n ON n.key_id = k.id
        ORDER BY k.next_attempt_at, k.id, n.placement_order, n.id
        """,  # noqa: S608 - our own fragments
        owner.name,
        owner.incarnation,
        limit,
        timedelta(seconds=lease_seconds),
    )
    return key_claims_from(rows)


async def confirm_activation(tx: Tx, claim: KeyClaim, applied: Sequence[NodeConfirmation]) -> ActivationOutcome:
    """Record that these nodes have the key as claimed; once all its nodes have it, it is active, if it is still wanted so.

    Runs under the key's advisory lock. Confirming twice gives the first result. What the nodes have is noted in any
    case; if the key is not wanted, its removal is queued and the worker that removes is woken. A key that replaces
    another ends the replacement here: the other one is wanted no more from then on. A new access that comes late gets the
    time it waited (`db.access.undelivered`); its key is wanted anew then, until the later end.
    """
    new_access = await find_undelivered(tx, claim.new_access) if claim.new_access is not None and applied else None
    outcome = await _confirm(tx, claim, applied)
    if new_access is not None and outcome.result is not ActivationResult.UNWANTED:
        await note_delivery(tx, new_access, actor="activation")
    return outcome


async def _confirm(tx: Tx, claim: KeyClaim, applied: Sequence[NodeConfirmation]) -> ActivationOutcome:
    await lock_for_transaction(tx, LockSpace.KEY, claim.key_row)
    await record_confirmations(tx, claim, applied, "present")
    if claim.replaces:
        await lock_keys(tx, claim.subscription_id)
    row = await tx.fetchrow(
        f"""
        UPDATE vpn_keys k
        SET activation_status = CASE WHEN places.is_whole THEN 'active' ELSE 'pending' END,
            activated_at = coalesce(k.activated_at, CASE WHEN places.serving > 0 THEN atlas_now() END),
            attempts = CASE WHEN places.is_whole THEN 0 ELSE k.attempts END,
            last_error = CASE WHEN NOT places.is_whole THEN k.last_error END,
            {released(of="k.", unless="NOT places.is_whole")}
        FROM subscriptions s, vpn_keys before, LATERAL (
            SELECT count(*) FILTER (WHERE p.applied = 'present') AS serving,
                   count(*) > 0 AND bool_and(p.applied = 'present' AND p.applied_generation >= before.generation
                                          AND p.missing_since IS NULL) AS is_whole
            FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
            WHERE p.key_id = before.id AND n.retired_at IS NULL
        ) AS places
        WHERE k.id = $1 AND k.activation_status = 'pending' AND k.claim_epoch = $2
          AND s.id = k.subscription_id AND before.id = k.id
        RETURNING k.activated_at, s.expires_at, before.activated_at IS NULL AND places.serving > 0 AS is_first, places.is_whole
        """,  # noqa: S608 - our own fragments
        claim.key_row,
        claim.epoch,
    )
    if row is not None:
        if claim.replaces:
            if row["is_whole"]:
                await finish_reissue(tx, claim)
        elif row["is_first"]:
            await add_message(tx, "key_active", f"key:{claim.key_row}", customer_id=claim.customer_id)
        result = ActivationResult.ACTIVATED if row["is_whole"] else ActivationResult.PARTLY
        return ActivationOutcome(result, row["activated_at"], row["expires_at"])
    row = await tx.fetchrow(
        """
        SELECT k.activation_status, k.activated_at, k.generation, s.expires_at
        FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id WHERE k.id = $1 FOR NO KEY UPDATE OF k
        """,
        claim.key_row,
    )
    if row is None:
        raise LookupError(f"key row {claim.key_row} is gone, but keys are never deleted")
    if row["activation_status"] == "pending":
        result = ActivationResult.SUPERSEDED
    elif row["activation_status"] == "active":
        result = ActivationResult.ALREADY_ACTIVE
    else:
        result = ActivationResult.UNWANTED
        if applied:
            await _queue_surplus(tx, claim.key_row)
    return ActivationOutcome(result, row["activated_at"], row["expires_at"])


async def postpone_activation(tx: Tx, claim: KeyClaim, delay_seconds: float, error: str) -> bool:
    """Give the claim back because the node cannot be reached: no attempt is counted, it is due again after the delay.

    `False`: the claim was lost meanwhile and nothing was written.
    """
    return await release_key_claim(tx, claim, delay_seconds, error)


async def fail_activation(tx: Tx, claim: KeyClaim, error: str, known_generation: int = -1) -> FailureResult:
    """Count a real failure. Up to `MAX_ATTEMPTS` it is due again after a growing, jittered delay; then it is given up.

    A key that some node serves is not given up but tried on (case `placement_refused`). Any other never comes back: the
    next purchase makes a new one. While another key of the subscription is wanted, the customer keeps that one, and the
    access stays what it is (case `reissue_failed` if this one was to replace it, else `activation_failed`). Only the last
    key takes the access along: what was paid for is credited (`db.billing.compensation`), and the case says how much. The
    operator gets a message of each case. `known_generation` is what a node said it has: the next attempt is newer than that.
    """
    if claim.attempts + 1 >= MAX_ATTEMPTS:
        await lock_for_compensation(tx, claim.subscription_id)
    row = await tx.fetchrow(
        f"""
        UPDATE vpn_keys k
        SET attempts = k.attempts + 1, last_error = $3, generation = greatest(k.generation, $7 + 1),
            activation_status = CASE WHEN k.attempts + 1 >= $4 AND NOT is_served THEN 'failed' ELSE 'pending' END,
            -- full jitter over the upper half, so that keys that failed together do not come back together
            next_attempt_at = atlas_now()
                + CASE WHEN k.attempts = 0 AND $7 >= k.generation THEN 0  -- to be newer is all that it takes
                       ELSE least($6, $5 * 2 ^ least(k.attempts, 20)) * (0.5 + random() / 2) END * interval '1 second',
            {released()}
        FROM (SELECT EXISTS (SELECT FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
                             WHERE p.key_id = $1 AND p.applied = 'present' AND p.missing_since IS NULL
                               AND n.retired_at IS NULL) AS is_served) AS places
        WHERE k.id = $1 AND k.claim_epoch = $2 AND k.activation_status = 'pending'
        RETURNING k.activation_status, k.attempts
        """,  # noqa: S608 - our own fragments
        claim.key_row,
        claim.epoch,
        error[:500],
        MAX_ATTEMPTS,
        FIRST_RETRY_SECONDS,
        LAST_RETRY_SECONDS,
        known_generation,
    )
    if row is None:
        return FailureResult.LOST
    if row["activation_status"] == "pending":
        if row["attempts"] >= MAX_ATTEMPTS:
            await _open_case(tx, "placement_refused", claim, row["attempts"], error)
        return FailureResult.RETRY
    if await give_up_key(tx, claim.key_row):
        kind = "reissue_failed" if claim.replaces else "activation_failed"
        await _open_case(tx, kind, claim, row["attempts"], error, {"kept": "another key of the customer"})
        return FailureResult.GAVE_UP
    compensation = await compensate(
        tx, claim.subscription_id, reason="the access could not be set up", actor="activation"
    )
    credited = {"compensated": compensation.amount.amount, "journal": compensation.journal_id}
    await _open_case(tx, "activation_failed", claim, row["attempts"], error, credited)
    return FailureResult.GAVE_UP


async def _open_case(
    tx: Tx, kind: str, claim: KeyClaim, attempts: int, error: str, more: Mapping[str, object] | None = None
) -> None:
    await open_case(
        tx,
        kind,
        f"key:{claim.key_row}:{claim.generation}",
        customer_id=claim.customer_id,
        key_row=claim.key_row,
        details={"attempts": attempts, "error": error[:200], **(more or {})},
    )


async def _queue_surplus(tx: Tx, row: int) -> None:
    """Also a key that was given up, or whose removal was confirmed before this late arrival, has to leave the node."""
    await tx.execute(
        f"""
        WITH queued AS (
            UPDATE vpn_keys
            SET wanted = 'absent', {wanted_anew("removing")}
            WHERE id = $1 AND activation_status IN ('failed', 'removed')
        )
        SELECT pg_notify('atlas_wake', 'fast_expiry')
        """,  # noqa: S608 - our own fragments
        row,
    )
