"""The canary's key on each node: a row of its own kind, which no customer, price or entitlement knows of."""

from uuid import UUID

import attrs

from db.errors import UnknownNode
from db.tx import Tx
from db.work.audit import abbreviated


@attrs.frozen
class CanaryKey:
    """The canary's key on one node, and what a link to it is made of."""

    node: str
    key_id: str
    uuid: UUID = attrs.field(repr=abbreviated)
    generation: int
    is_confirmed: bool
    """The node has had it."""
    flow: str
    inbounds: tuple[str, ...]


async def canary_key(tx: Tx, node: str) -> CanaryKey:
    """The canary's key on the node, made at the first call. Raises `UnknownNode`."""
    row = await tx.fetchrow(
        """
        WITH node AS (
            SELECT * FROM vpn_nodes WHERE name = $1
        ), made AS (
            INSERT INTO canary_keys (node_id, key_id, uuid)
            SELECT id, 'canary' || replace(gen_random_uuid()::text, '-', ''), gen_random_uuid() FROM node
            ON CONFLICT (node_id) DO NOTHING
            RETURNING *
        )
        SELECT c.key_id, c.uuid, c.generation, c.confirmed_at IS NOT NULL AS is_confirmed, n.flow, n.inbounds
        FROM node n JOIN (SELECT * FROM canary_keys UNION ALL TABLE made) AS c ON c.node_id = n.id
        """,
        node,
    )
    if row is None:
        raise UnknownNode(node)
    return CanaryKey(
        node,
        row["key_id"],
        UUID(int=row["uuid"].int),
        row["generation"],
        row["is_confirmed"],
        row["flow"],
        tuple(row["inbounds"]),
    )


async def find_canary_key(tx: Tx, node: str) -> CanaryKey | None:
    """The canary's key on the node, or `None` if it has none."""
    if not await tx.fetchval(
        "SELECT EXISTS (SELECT FROM canary_keys c JOIN vpn_nodes n ON n.id = c.node_id WHERE n.name = $1)", node
    ):
        return None
    return await canary_key(tx, node)


async def confirm_canary(tx: Tx, key: CanaryKey) -> None:
    """Record that the node has read the canary's key back."""
    await tx.execute(
        "UPDATE canary_keys SET confirmed_at = coalesce(confirmed_at, atlas_now()) WHERE key_id = $1 AND generation = $2",
        key.key_id,
        key.generation,
    )


async def renew_canary(tx: Tx, key: CanaryKey, known_generation: int) -> None:
    """The node knows something newer of the key: want it with a generation above that."""
    await tx.execute(
        """
        UPDATE canary_keys SET generation = greatest(generation, $2) + 1, confirmed_at = NULL
        WHERE key_id = $1 AND generation = $3
        """,
        key.key_id,
        known_generation,
        key.generation,
    )
