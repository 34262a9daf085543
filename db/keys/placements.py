"""What is true of keys node by node: which of them a node does not have as they are wanted.

A placement is (key, node, generation). What is wrong on one node is neither hidden nor held up by what happens on another.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from db.keys.reconcile import ExpectedKey
from db.tx import Tx
from db.work.leader_leases import Epoch, check_epoch

LATE_SECONDS = 60.0
"""A key that waits for a node no longer than this is on its way, and not yet wrong there."""


@attrs.frozen
class NodeKeys:
    """How many keys are wrong on one node."""

    node: str
    late: int
    """Wanted there for longer than `LATE_SECONDS`, and not confirmed as wanted."""
    missing: int
    """The node had them and was seen without them."""
    ended: int
    """Wanted there no more, and there still: not confirmed to be gone, or seen again."""
    strangers: int
    """Keys that this database never knew, in quarantine."""
    last_seen_at: datetime | None

    @property
    def wrong(self) -> int:
        """Customers' keys that are not there as they should be. Strangers are no customers'."""
        return self.late + self.missing + self.ended

    def __str__(self) -> str:
        """How many, by kind; empty if there are none, strangers included."""
        kinds = [
            (self.missing, "it had and does not have any more"),
            (self.late, "wait to be put there"),
            (self.ended, "should not be there any more"),
            (self.strangers, "are unknown here"),
        ]
        return ", ".join(f"{count} {words}" for count, words in kinds if count)


async def record_missing(tx: Tx, epoch: Epoch, node: str, keys: Sequence[ExpectedKey]) -> None:
    """Record that the node was seen without these keys, which it had confirmed. What it confirmed of a newer generation stays."""
    await check_epoch(tx, epoch)
    await tx.execute(
        """
        UPDATE key_placements p SET missing_since = atlas_now()
        FROM unnest($2::bigint[], $3::bigint[]) AS seen (row, generation), vpn_nodes n
        WHERE n.name = $1 AND p.node_id = n.id AND p.key_id = seen.row AND p.applied = 'present'
          AND p.applied_generation <= seen.generation AND p.missing_since IS NULL
        """,
        node,
        [key.key_row for key in keys],
        [key.generation for key in keys],
    )


async def wrong_keys(tx: Tx, node: str | None = None) -> list[NodeKeys]:
    """How many keys are wrong on each node that is not retired, or on the one of that name; in the order of their names.

    Reads only keys that are on their way, missing or seen where they should not be: cheap while that is little.
    """
    rows = await tx.fetch(
        """
        WITH waiting AS MATERIALIZED (
            SELECT id, key_id, generation, activation_status FROM vpn_keys
            WHERE activation_status IN ('pending', 'removing') AND pending_since <= atlas_now() - $2::interval
        ), behind AS MATERIALIZED (
            SELECT p.node_id, k.key_id, k.activation_status
            FROM waiting k JOIN key_placements p ON p.key_id = k.id
            WHERE p.missing_since IS NULL
              AND (p.applied_generation < k.generation
                   OR p.applied <> CASE k.activation_status WHEN 'pending' THEN 'present' ELSE 'absent' END)
        )
        SELECT n.name, n.last_seen_at,
               (SELECT count(*) FROM behind WHERE node_id = n.id AND activation_status = 'pending') AS late,
               (SELECT count(*)
                FROM (SELECT key_id FROM behind WHERE node_id = n.id AND activation_status = 'removing'
                      UNION SELECT key_id FROM key_sightings WHERE node_id = n.id AND is_known) AS still) AS ended,
               (SELECT count(*) FROM key_placements p JOIN vpn_keys k ON k.id = p.key_id
                WHERE p.node_id = n.id AND p.missing_since IS NOT NULL AND k.wanted = 'present') AS missing,
               (SELECT count(*) FROM key_sightings WHERE node_id = n.id AND NOT is_known) AS strangers
        FROM vpn_nodes n WHERE n.retired_at IS NULL AND ($1::text IS NULL OR n.name = $1)
        ORDER BY n.name
        """,
        node,
        timedelta(seconds=LATE_SECONDS),
    )
    return [
        NodeKeys(row["name"], row["late"], row["missing"], row["ended"], row["strangers"], row["last_seen_at"])
        for row in rows
    ]
