"""Keys that nodes have and should not: which of them this database knows, and how long strangers are left alone.

Known are keys that were ours and are wanted there no more (removed, reissued, given up, the canary's on another node): a node
that has one was restored from a backup or cloned. Such a key goes at once. Strangers are keys that this database never knew: they
may be right, and this the wrong database, so they wait in quarantine.
"""

from collections.abc import Sequence
from datetime import timedelta

import attrs

from db.tx import Tx
from db.work.leader_leases import Epoch, check_epoch


@attrs.frozen
class UnwantedKey:
    """A key that is not to be on a node."""

    key_id: str
    is_known: bool
    """It was ours: it needs no second sighting."""
    generation: int = 0
    """Up to which it is not wanted, as far as the database knows; 0 for a stranger."""


@attrs.frozen
class Sighting:
    """An unwanted key as a node has it."""

    key_id: str
    generation: int
    is_known: bool


async def unwanted_of(tx: Tx, node: str, key_ids: Sequence[str]) -> list[UnwantedKey]:
    """Return which of these keys are not wanted on the node: unknown ones, and known ones that it should have no more."""
    rows = await tx.fetch(
        """
        SELECT seen.key_id, k.id IS NOT NULL OR c.node_id IS NOT NULL AS is_known,
               coalesce(k.generation, c.generation, 0) AS generation
        FROM unnest($2::text[]) AS seen (key_id)
        LEFT JOIN vpn_keys k ON k.key_id = seen.key_id
        LEFT JOIN canary_keys c ON c.key_id = seen.key_id
        LEFT JOIN vpn_nodes n ON n.id = c.node_id
        WHERE (k.id IS NULL OR k.wanted = 'absent' OR k.activation_status = 'failed') AND n.name IS DISTINCT FROM $1
        """,
        node,
        list(key_ids),
    )
    return [UnwantedKey(row["key_id"], row["is_known"], row["generation"]) for row in rows]


async def record_sightings(tx: Tx, epoch: Epoch, node: str, pass_number: int, seen: Sequence[Sighting]) -> None:
    """Record keys that were seen on the node and are unwanted. Strangers among them are in quarantine from the first time on."""
    await check_epoch(tx, epoch)
    await tx.execute(
        """
        INSERT INTO key_sightings AS s (node_id, key_id, first_pass, last_pass, generation, is_known)
        SELECT n.id, seen.key_id, $2, $2, seen.generation, seen.is_known
        FROM vpn_nodes n, unnest($3::text[], $4::bigint[], $5::boolean[]) AS seen (key_id, generation, is_known) WHERE n.name = $1
        ON CONFLICT (node_id, key_id) DO UPDATE
            SET last_pass = excluded.last_pass, last_seen_at = atlas_now(), generation = excluded.generation,
                is_known = excluded.is_known
        """,
        node,
        pass_number,
        [key.key_id for key in seen],
        [key.generation for key in seen],
        [key.is_known for key in seen],
    )


async def ripe_sightings(
    tx: Tx, epoch: Epoch, node: str, pass_number: int, grace_seconds: float, limit: int
) -> tuple[int, list[str]]:
    """How many strangers this pass saw, and up to `limit` of them that an earlier pass saw as well, long enough ago.

    Keys that this pass did not see any more are forgotten, known ones too.
    """
    await check_epoch(tx, epoch)
    await tx.execute(
        """
        DELETE FROM key_sightings s USING vpn_nodes n WHERE n.name = $1 AND s.node_id = n.id AND s.last_pass < $2
        """,
        node,
        pass_number,
    )
    rows = await tx.fetch(
        """
        SELECT s.key_id, s.first_pass < $2 AND s.first_seen_at <= atlas_now() - $3::interval AS is_ripe
        FROM key_sightings s JOIN vpn_nodes n ON n.id = s.node_id WHERE n.name = $1 AND NOT s.is_known
        ORDER BY s.first_seen_at, s.key_id
        """,
        node,
        pass_number,
        timedelta(seconds=grace_seconds),
    )
    return len(rows), [row["key_id"] for row in rows if row["is_ripe"]][:limit]


async def confirm_unwanted(tx: Tx, epoch: Epoch, node: str, key_id: str) -> bool:
    """Read again, right before the removal, whether the key is still unwanted there; if so, count the removal and return True."""
    await check_epoch(tx, epoch)
    if not await unwanted_of(tx, node, [key_id]):
        await _forget(tx, node, [key_id])
        return False
    await tx.execute(
        """
        UPDATE reconcile_passes p SET removals = removals + 1 FROM vpn_nodes n WHERE n.name = $1 AND p.node_id = n.id
        """,
        node,
    )
    return True


async def confirm_known(tx: Tx, epoch: Epoch, node: str, key_ids: Sequence[str]) -> list[UnwantedKey]:
    """Read again, right before their removal, which of these known keys are still unwanted there; the others are forgotten."""
    await check_epoch(tx, epoch)
    found = [key for key in await unwanted_of(tx, node, key_ids) if key.is_known]
    await _forget(tx, node, sorted({*key_ids} - {key.key_id for key in found}))
    return found


async def known_unwanted(tx: Tx, node: str, after: int, limit: int) -> tuple[list[UnwantedKey], int | None]:
    """Up to `limit` known keys that had a place on the node and are wanted there no more, by row above `after`; and where to go
    on, `None` at the end. For a node that cannot list what it has."""
    rows = await tx.fetch(
        """
        SELECT k.id, k.key_id, k.generation
        FROM vpn_nodes n JOIN key_placements p ON p.node_id = n.id JOIN vpn_keys k ON k.id = p.key_id
        WHERE n.name = $1 AND p.key_id > $2 AND (k.wanted = 'absent' OR k.activation_status = 'failed')
        ORDER BY p.key_id LIMIT $3
        """,
        node,
        after,
        limit,
    )
    found = [UnwantedKey(row["key_id"], is_known=True, generation=row["generation"]) for row in rows]
    return found, rows[-1]["id"] if len(rows) == limit else None


async def record_gone(tx: Tx, epoch: Epoch, node: str, keys: Sequence[tuple[str, int]]) -> None:
    """Record that the node has these keys no more, each up to this generation. What is known of a newer one stays."""
    await check_epoch(tx, epoch)
    await tx.execute(
        """
        UPDATE key_placements p
        SET applied = 'absent', applied_generation = seen.generation, applied_expires_at = NULL,
            applied_boot_id = NULL, applied_at = atlas_now(), missing_since = NULL
        FROM unnest($2::text[], $3::bigint[]) AS seen (key_id, generation)
        JOIN vpn_keys k ON k.key_id = seen.key_id, vpn_nodes n
        WHERE n.name = $1 AND p.node_id = n.id AND p.key_id = k.id AND p.applied_generation <= seen.generation
        """,
        node,
        [key_id for key_id, _ in keys],
        [generation for _, generation in keys],
    )
    await _forget(tx, node, [key_id for key_id, _ in keys])


async def forget_sighting(tx: Tx, epoch: Epoch, node: str, key_id: str) -> None:
    """Take a key off the quarantine list of a node: it is gone from there."""
    await check_epoch(tx, epoch)
    await _forget(tx, node, [key_id])


async def _forget(tx: Tx, node: str, key_ids: Sequence[str]) -> None:
    if key_ids:
        await tx.execute(
            """
            DELETE FROM key_sightings s USING vpn_nodes n
            WHERE n.name = $1 AND s.node_id = n.id AND s.key_id = ANY ($2::text[])
            """,
            node,
            list(key_ids),
        )
