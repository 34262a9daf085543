"""Reconciling in SQL: what the rows say that a node has, in pages, and which keys were found there that are not wanted.

Rows compare what is believed of a node (`key_placements`) with the node itself; what is wanted but not yet told is the
business of the workers that activate and remove. Every write of a pass is fenced by the epoch of the singleton.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import attrs

from db.billing.cases import open_case_of_the_day
from db.tx import Row, Tx
from db.work.audit import abbreviated
from db.work.claims import revoked
from db.work.leader_leases import Epoch, check_epoch

KeyStatus = Literal["pending", "active", "failed", "removing"]


@attrs.frozen
class DigestPart:
    """The digest of some of the keys that a node is believed to have; parts are combined by XOR."""

    count: int
    behind: int
    """Active keys that the node is not known to have as they are wanted, and keys that it was seen without."""
    digest: int
    last: int | None
    """Where the next part starts; `None` if this was the last."""


@attrs.frozen
class ExpectedKey:
    """A key that belongs on a node, as the rows have it."""

    key_row: int
    key_id: str
    uuid: UUID = attrs.field(repr=abbreviated)
    generation: int
    status: KeyStatus
    expires_at: datetime
    is_noted: bool
    """The node has confirmed this generation of it."""
    noted_at: datetime | None = None
    """When the database last heard anything of it on the node; on the database's clock."""
    is_missing: bool = False
    """It was seen without it since."""


@attrs.frozen
class ReconcilePass:
    """How far the reconciling of a node has come."""

    number: int
    position: str
    """Keys up to here have been compared in this pass, and put right."""
    looked_at: datetime
    """When this look began, before the node was asked for its list; on the database's clock."""
    removals: int
    boot_id: str | None
    """Of the node when it was last compared to the end."""
    flow: str
    inbounds: tuple[str, ...]


async def begin_pass(tx: Tx, epoch: Epoch, node: str) -> ReconcilePass | None:
    """Begin a pass over the node, or go on with the one that was interrupted. `None`: no such node is registered."""
    await check_epoch(tx, epoch)
    row = await tx.fetchrow(
        """
        INSERT INTO reconcile_passes AS p (node_id) SELECT id FROM vpn_nodes WHERE name = $1
        ON CONFLICT (node_id) DO UPDATE
            SET pass = p.pass + (p.finished_at IS NOT NULL)::integer,
                position = CASE WHEN p.finished_at IS NULL THEN p.position ELSE '' END,
                removals = CASE WHEN p.finished_at IS NULL THEN p.removals ELSE 0 END,
                started_at = CASE WHEN p.finished_at IS NULL THEN p.started_at ELSE atlas_now() END,
                finished_at = NULL
        RETURNING pass, position, atlas_now() AS looked_at, removals, boot_id,
                  (SELECT flow FROM vpn_nodes WHERE id = node_id) AS flow,
                  (SELECT inbounds FROM vpn_nodes WHERE id = node_id) AS inbounds
        """,
        node,
    )
    if row is None:
        return None
    return ReconcilePass(
        row["pass"],
        row["position"],
        row["looked_at"],
        row["removals"],
        row["boot_id"],
        row["flow"],
        tuple(row["inbounds"]),
    )


async def place_keys(tx: Tx, epoch: Epoch, node: str, after: int, limit: int) -> int | None:
    """Place up to `limit` wanted keys on the node that have no place there yet, because it was added later.

    Looks at rows above `after` and returns where to go on, `None` at the end. A node that accepts no keys gets none.
    """
    await check_epoch(tx, epoch)
    row = await tx.fetchrow(
        """
        WITH seen AS MATERIALIZED (
            SELECT k.id, n.id AS node_id, p.key_id IS NULL AS is_new
            FROM vpn_nodes n JOIN vpn_keys k ON k.activation_status IN ('active', 'pending')
            LEFT JOIN key_placements p ON p.key_id = k.id AND p.node_id = n.id
            WHERE n.name = $1 AND n.accepts_keys AND n.retired_at IS NULL AND k.id > $2
            ORDER BY k.id LIMIT $3
        ), placed AS (
            INSERT INTO key_placements (key_id, node_id) SELECT id, node_id FROM seen WHERE is_new
            ON CONFLICT (key_id, node_id) DO NOTHING
        )
        SELECT count(*) AS seen, max(id) AS last FROM seen
        """,
        node,
        after,
        limit,
    )
    assert row is not None, "an aggregate is one row"
    return row["last"] if row["seen"] == limit else None


async def digest_part(tx: Tx, node: str, after: int, limit: int) -> DigestPart:
    """Up to `limit` placements on the node above row `after`, digested as the node digests them."""
    row = await tx.fetchrow(
        """
        WITH part AS MATERIALIZED (
            SELECT p.key_id AS row, k.key_id, k.uuid, n.flow, p.applied, p.applied_expires_at,
                   array_to_string(ARRAY(SELECT tag FROM unnest(n.inbounds) AS tag ORDER BY tag COLLATE "C"), ',') AS inbounds,
                   CASE k.activation_status
                       WHEN 'active' THEN NOT (p.applied = 'present' AND p.applied_generation >= k.generation)
                                          OR p.missing_since IS NOT NULL
                       WHEN 'pending' THEN p.missing_since IS NOT NULL
                       ELSE false END AS is_behind
            FROM vpn_nodes n
            JOIN key_placements p ON p.node_id = n.id
            JOIN vpn_keys k ON k.id = p.key_id
            WHERE n.name = $1 AND p.key_id > $2
            ORDER BY p.key_id LIMIT $3
        ), digested AS (
            SELECT bit_xor(('x' || encode(sha256(
                       convert_to(inbounds, 'UTF8') || '\\x00' || convert_to(key_id, 'UTF8') || '\\x00'
                       || convert_to(replace(uuid::text, '-', ''), 'UTF8') || '\\x00' || convert_to(flow, 'UTF8') || '\\x00'
                       || convert_to(coalesce(ceil(extract(epoch FROM applied_expires_at))::bigint::text, 'None'), 'UTF8')
                   ), 'hex'))::bit(256)) AS digest
            FROM part WHERE applied = 'present'
        )
        SELECT count(*) AS seen, count(*) FILTER (WHERE applied = 'present') AS present,
               count(*) FILTER (WHERE is_behind) AS behind, max(row) AS last, (SELECT digest::text FROM digested) AS digest
        FROM part
        """,
        node,
        after,
        limit,
    )
    assert row is not None, "an aggregate is one row"
    return DigestPart(
        count=row["present"],
        behind=row["behind"],
        digest=int(row["digest"] or "0", 2),
        last=row["last"] if row["seen"] == limit else None,
    )


_EXPECTED = """
    SELECT k.id, k.key_id, k.uuid, k.generation, k.activation_status, s.expires_at,
           p.applied = 'present' AND p.applied_generation >= k.generation AS is_noted, p.applied_at,
           p.missing_since IS NOT NULL AS is_missing
    FROM vpn_keys k
    JOIN key_placements p ON p.key_id = k.id AND p.node_id = (SELECT id FROM vpn_nodes WHERE name = $1)
    JOIN subscriptions s ON s.id = k.subscription_id
    WHERE k.activation_status <> 'removed'
"""


async def expected_page(tx: Tx, node: str, after: str, limit: int) -> list[ExpectedKey]:
    """Up to `limit` keys that have a place on the node and are not removed, by key id in the order of bytes."""
    rows = await tx.fetch(
        f'{_EXPECTED} AND k.key_id COLLATE "C" > $2 ORDER BY k.key_id COLLATE "C" LIMIT $3', node, after, limit
    )
    return [_expected(row) for row in rows]


async def find_expected(tx: Tx, node: str, key_id: str) -> ExpectedKey | None:
    """One key that has a place on the node and is not removed."""
    row = await tx.fetchrow(f"{_EXPECTED} AND k.key_id = $2", node, key_id)
    return None if row is None else _expected(row)


def _expected(row: Row) -> ExpectedKey:
    return ExpectedKey(
        row["id"],
        row["key_id"],
        UUID(int=row["uuid"].int),
        row["generation"],
        row["activation_status"],
        row["expires_at"],
        row["is_noted"],
        row["applied_at"],
        row["is_missing"],
    )


async def record_present(tx: Tx, epoch: Epoch, node: str, boot_id: str, keys: Sequence[ExpectedKey]) -> None:
    """Record that the node was seen to have these keys as they are wanted. What is already known of a newer generation stays."""
    await check_epoch(tx, epoch)
    await tx.execute(
        """
        UPDATE key_placements p
        SET applied = 'present', applied_generation = seen.generation, applied_expires_at = seen.expires_at,
            applied_boot_id = $2, applied_at = atlas_now(), missing_since = NULL
        FROM unnest($3::bigint[], $4::bigint[], $5::timestamptz[]) AS seen (row, generation, expires_at), vpn_nodes n
        WHERE n.name = $1 AND p.node_id = n.id AND p.key_id = seen.row AND p.applied_generation <= seen.generation
        """,
        node,
        boot_id,
        [key.key_row for key in keys],
        [key.generation for key in keys],
        [key.expires_at for key in keys],
    )


async def want_newer_generation(tx: Tx, epoch: Epoch, keys: Sequence[tuple[ExpectedKey, int]]) -> None:
    """Want these keys again, in a generation newer than the one given, because the node has something else of that one.

    Wakes the activation worker. A key that changed since it was read is left alone: its own worker is at it.
    """
    await check_epoch(tx, epoch)
    await tx.execute(
        f"""
        WITH changed AS (
            UPDATE vpn_keys k
            SET generation = seen.generation + 1, activation_status = 'pending',
                -- a key that waits for another node as well has waited since then, and keeps the refusals that it has met
                pending_since = CASE k.activation_status WHEN 'active' THEN atlas_now() ELSE k.pending_since END,
                attempts = CASE k.activation_status WHEN 'active' THEN 0 ELSE k.attempts END,
                next_attempt_at = atlas_now(), last_error = NULL, {revoked()}
            FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS seen (row, before, generation)
            WHERE k.id = seen.row AND k.generation = seen.before AND k.activation_status IN ('active', 'pending')
        )
        SELECT pg_notify('atlas_wake', 'activation')
        """,  # noqa: S608 - our own fragments
        [key.key_row for key, _ in keys],
        [key.generation for key, _ in keys],
        [max(key.generation, generation) for key, generation in keys],
    )


async def save_position(tx: Tx, epoch: Epoch, node: str, position: str) -> None:
    """Keys up to here were compared, and what was missing of them is back: the rest of the pass need not look at them again."""
    await check_epoch(tx, epoch)
    await tx.execute(
        "UPDATE reconcile_passes p SET position = $2 FROM vpn_nodes n WHERE n.name = $1 AND p.node_id = n.id",
        node,
        position,
    )


async def finish_pass(tx: Tx, epoch: Epoch, node: str, verdict: str, boot_id: str | None) -> None:
    """The pass is over; a `boot_id` says that the node was compared to the end."""
    await check_epoch(tx, epoch)
    await tx.execute(
        """
        UPDATE reconcile_passes p
        SET finished_at = atlas_now(), position = '', verdict = $2, boot_id = coalesce($3, p.boot_id)
        FROM vpn_nodes n WHERE n.name = $1 AND p.node_id = n.id
        """,
        node,
        verdict[:200],
        boot_id,
    )


async def give_up_pass(tx: Tx, epoch: Epoch, node: str, why: str) -> None:
    """The node says what cannot be true, or has what we never put there: the pass is over, and a human has to look.

    One case a node and day.
    """
    await finish_pass(tx, epoch, node, "implausible", None)
    await open_case_of_the_day(tx, "node_implausible", f"node:{node}", details={"why": why[:400]})
