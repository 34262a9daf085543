"""VPN nodes as the database knows them: their public facts for links, and when they were last seen."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from db.errors import UnknownNode
from db.tx import Row, Tx
from db.work.audit import record_audit


@attrs.frozen
class NodeRow:
    """A VPN node as it was registered: one row of `vpn_nodes`."""

    name: str
    endpoint: Mapping[str, object]
    """Public facts that a customer's link is made of: host, port, security, server name and the like. No secrets."""
    flow: str
    inbounds: tuple[str, ...]
    """Tags of the inbounds that customers' keys go to."""
    accepts_keys: bool
    placement_order: int
    boot_id: str | None
    last_seen_at: datetime | None
    retired_at: datetime | None
    """Since when no supervisor has it in its configuration; nothing is placed there and nothing waits for it."""


async def register_node(
    tx: Tx,
    name: str,
    endpoint: Mapping[str, object],
    *,
    inbounds: Sequence[str],
    flow: str = "",
    accepts_keys: bool = True,
    placement_order: int = 100,
) -> NodeRow:
    """Add the node or bring its facts up to date; keys that wait for a node are claimed from then on.

    A node that was retired is back with that. Wakes the activation worker.
    """
    row = await tx.fetchrow(
        """
        WITH node AS (
            INSERT INTO vpn_nodes (name, endpoint, flow, inbounds, accepts_keys, placement_order)
            VALUES ($1, $2::text::jsonb, $3, $4, $5, $6)
            ON CONFLICT (name) DO UPDATE
                SET endpoint = excluded.endpoint, flow = excluded.flow, inbounds = excluded.inbounds,
                    accepts_keys = excluded.accepts_keys, placement_order = excluded.placement_order,
                    retired_at = NULL
            RETURNING *
        )
        SELECT node.*, node.endpoint::text AS endpoint_text FROM node, pg_notify('atlas_wake', 'activation')
        """,
        name,
        json.dumps(endpoint),
        flow,
        list(inbounds),
        accepts_keys,
        placement_order,
    )
    assert row is not None, "an upsert returns its row"
    return _node(row)


@attrs.frozen
class NodeSeen:
    """What is known of a node after it answered."""

    is_new_boot: bool
    """It was started again since it was last seen."""
    now: datetime
    """The database's clock."""
    real_time: float
    """The same in Unix seconds, without the offset that a demonstration may have: what nodes go by."""


async def record_node_seen(tx: Tx, name: str, boot_id: str) -> NodeSeen:
    """Record that the node answered now, in the boot that it named. Raises `UnknownNode`."""
    row = await tx.fetchrow(
        """
        UPDATE vpn_nodes n SET boot_id = $2, last_seen_at = atlas_now()
        FROM vpn_nodes before WHERE n.name = $1 AND before.id = n.id
        RETURNING before.boot_id IS DISTINCT FROM n.boot_id AS is_new_boot, n.last_seen_at AS now,
                  extract(epoch FROM clock_timestamp())::float8 AS real_time
        """,
        name,
        boot_id,
    )
    if row is None:
        raise UnknownNode(name)
    return NodeSeen(row["is_new_boot"], row["now"], row["real_time"])


async def count_ended_too_soon(tx: Tx, name: str, key_ids: Sequence[str], tolerance_seconds: float) -> int:
    """How many of these keys, which the node takes to be over, it has confirmed to serve until later than now by more than the
    tolerance."""
    count: int = await tx.fetchval(
        """
        SELECT count(*) FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id JOIN vpn_keys k ON k.id = p.key_id
        WHERE n.name = $1 AND k.key_id = ANY ($2::text[]) AND p.applied = 'present' AND p.applied_generation = k.generation
          AND (p.applied_expires_at > atlas_now() + $3::interval OR p.applied_expires_at IS NULL)
        """,
        name,
        list(key_ids),
        timedelta(seconds=tolerance_seconds),
    )
    return count


async def make_keys_due(tx: Tx, name: str) -> int:
    """The node can be reached again: whatever waits for it is due now, not when its delay is over. Returns how many keys.

    Claimed keys are left to the worker that claimed them. Wakes no worker.
    """
    due: int = await tx.fetchval(
        """
        WITH waiting AS MATERIALIZED (
            SELECT k.id FROM vpn_keys k
            WHERE k.activation_status IN ('pending', 'removing') AND k.next_attempt_at > atlas_now() AND k.attempts = 0
              AND EXISTS (SELECT FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id
                          WHERE p.key_id = k.id AND n.name = $1 AND p.applied_generation < k.generation)
            ORDER BY k.id FOR NO KEY UPDATE SKIP LOCKED
        ), changed AS (
            UPDATE vpn_keys k SET next_attempt_at = atlas_now() FROM waiting WHERE k.id = waiting.id RETURNING 1
        )
        SELECT count(*) FROM changed
        """,
        name,
    )
    return due


async def retire_nodes(tx: Tx, configured: Sequence[str], unseen_seconds: float) -> list[str]:
    """Retire the nodes that are not `configured` here and were not seen for `unseen_seconds`; returns their names.

    Keys no longer wait for them, links to them are not shown. What such a node still serves ends on its own when it is
    over. Wakes the workers, because keys may be whole now.
    """
    rows = await tx.fetch(
        """
        WITH retired AS (
            UPDATE vpn_nodes SET retired_at = atlas_now()
            WHERE retired_at IS NULL AND name <> ALL ($1::text[])
              AND coalesce(last_seen_at, created_at) <= atlas_now() - $2::interval
            RETURNING name
        ), due AS (
            UPDATE vpn_keys SET next_attempt_at = atlas_now()
            WHERE activation_status IN ('pending', 'removing') AND next_attempt_at > atlas_now() AND EXISTS (SELECT FROM retired)
        )
        SELECT name, pg_notify('atlas_wake', 'activation'), pg_notify('atlas_wake', 'fast_expiry') FROM retired ORDER BY name
        """,
        list(configured),
        timedelta(seconds=unseen_seconds),
    )
    for row in rows:
        await record_audit(tx, "reconcile", "node_retired", subject=f"node:{row['name']}")
    return [row["name"] for row in rows]


def _node(row: Row) -> NodeRow:
    return NodeRow(
        name=row["name"],
        endpoint=json.loads(row["endpoint_text"]),
        flow=row["flow"],
        inbounds=tuple(row["inbounds"]),
        accepts_keys=row["accepts_keys"],
        placement_order=row["placement_order"],
        boot_id=row["boot_id"],
        last_seen_at=row["last_seen_at"],
        retired_at=row["retired_at"],
    )
