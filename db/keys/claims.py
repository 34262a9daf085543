"""What activation and removal share: a claimed key, giving it back, and noting what nodes have."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import attrs

from db.tx import Row, Tx, rows_of
from db.work.audit import abbreviated
from db.work.claims import released

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 600.0


def longest_retry(attempts: int) -> float:
    """Seconds after which a key that has failed so often before is certainly due again."""
    return min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 20))


@attrs.frozen
class Placement:
    """A node that a key belongs on, as far as the key needs to know it."""

    node: str
    flow: str
    inbounds: tuple[str, ...]


@attrs.frozen
class KeyClaim:
    """A claimed key: all that is needed to build what the node is told, and to come back with it."""

    key_row: int
    key_id: str
    uuid: UUID = attrs.field(repr=abbreviated)
    generation: int
    epoch: int
    expires_at: datetime
    subscription_id: int
    customer_id: int
    attempts: int
    """Failures so far."""
    wait_seconds: float
    """Seconds since it has been wanted so, when it was claimed, on the database's clock."""
    placements: tuple[Placement, ...]
    """Where it has to be told; empty if every node has been told already."""
    replaces: bool = False
    """Once it is active, the subscription's other keys are wanted no more."""
    new_access: int | None = None
    """The purchase (an entitlement event) that began the access, if no node has had its key yet."""


@attrs.frozen
class NodeConfirmation:
    """A node has confirmed, by reading it back, that it has the key as claimed (or, for a removal, has it no more)."""

    node: str
    boot_id: str | None = None


def key_claims_from(rows: Iterable[Row]) -> list[KeyClaim]:
    """Gather rows of one key and node (or none) each, in their order, into one claim per key."""
    claims: dict[int, KeyClaim] = {}
    for row in rows:
        places = () if row["node"] is None else (Placement(row["node"], row["flow"], tuple(row["inbounds"])),)
        known = claims.get(row["id"])
        if known is not None:
            claims[known.key_row] = attrs.evolve(known, placements=(*known.placements, *places))
            continue
        claims[row["id"]] = KeyClaim(
            key_row=row["id"],
            key_id=row["key_id"],
            uuid=UUID(int=row["uuid"].int),
            generation=row["generation"],
            epoch=row["claim_epoch"],
            expires_at=row["expires_at"],
            subscription_id=row["subscription_id"],
            customer_id=row["customer_id"],
            attempts=row["attempts"],
            wait_seconds=row["waited"],
            placements=places,
            replaces=row["replaces"],
            new_access=row["new_access"],
        )
    return list(claims.values())


async def release_key_claim(tx: Tx, claim: KeyClaim, delay_seconds: float, error: str) -> bool:
    """Release the claim without counting an attempt; the key is due again after the delay.

    `False`: the claim was lost, or another transaction holds the row's lock, and then it stays claimed. Never waits.
    """
    tag = await tx.execute(
        f"""
        UPDATE vpn_keys
        SET next_attempt_at = atlas_now() + $3::interval, last_error = $4,
            {released()}
        WHERE id = (SELECT id FROM vpn_keys
                    WHERE id = $1 AND claim_epoch = $2 AND activation_status IN ('pending', 'removing')
                    FOR NO KEY UPDATE SKIP LOCKED)
        """,  # noqa: S608 - our own fragments
        claim.key_row,
        claim.epoch,
        timedelta(seconds=delay_seconds),
        error[:500],
    )
    return rows_of(tag) == 1


async def record_confirmations(
    tx: Tx, claim: KeyClaim, applied: Sequence[NodeConfirmation], state: Literal["present", "absent"]
) -> None:
    """Record what the nodes confirmed. A confirmation older than what is already known of the node changes nothing."""
    await tx.execute(
        """
        UPDATE key_placements p
        SET applied = $6, applied_generation = $2, applied_expires_at = CASE WHEN $6 = 'present' THEN $3::timestamptz END,
            applied_boot_id = seen.boot_id, applied_at = atlas_now(), missing_since = NULL
        FROM unnest($4::text[], $5::text[]) AS seen (node, boot_id) JOIN vpn_nodes n ON n.name = seen.node
        WHERE p.key_id = $1 AND p.node_id = n.id AND p.applied_generation <= $2
        """,
        claim.key_row,
        claim.generation,
        claim.expires_at,
        [node.node for node in applied],
        [node.boot_id for node in applied],
        state,
    )
