"""Who rules a node: the chain of nonces by which a node tells this database from every copy of it.

A node takes a nonce only from who knows the one before. A copy of the database that is older than the last change can
therefore never rule a node, and one that is younger is found out at the next change.
"""

from __future__ import annotations

import attrs

from db.errors import UnknownNode
from db.tx import Tx, rows_of
from db.work.audit import record_audit

KEPT = 100
"""Nonces of a node that are remembered: a node that was restored from a backup is recognised by one of them."""


@attrs.frozen
class OwnerClaim:
    """What a node is asked to take. `previous` is the nonce that it took last, "" if it never took one of ours."""

    database_id: str
    previous: str = attrs.field(repr=False)
    nonce: str = attrs.field(repr=False)
    is_taking: bool
    code: str = attrs.field(repr=False)


async def pending_claim(tx: Tx, name: str) -> OwnerClaim:
    """The change that is on its way to this node, or a new one. Raises `UnknownNode`.

    Everybody who works on this database says the same until the node has answered.
    """
    node_id = await _locked(tx, name)
    row = await tx.fetchrow(
        """
        WITH added AS (
            INSERT INTO node_nonces (node_id) SELECT $1
            WHERE NOT EXISTS (SELECT FROM node_nonces WHERE node_id = $1 AND is_pending)
            RETURNING nonce, is_taking, code
        ), pending AS (
            SELECT nonce, is_taking, code FROM added
            UNION ALL SELECT nonce, is_taking, code FROM node_nonces WHERE node_id = $1 AND is_pending
        )
        SELECT i.database_id::text, p.nonce::text, p.is_taking, p.code,
               coalesce((SELECT nonce::text FROM node_nonces WHERE node_id = $1 AND NOT is_pending ORDER BY id DESC LIMIT 1), '')
                   AS previous
        FROM pending p, database_identity i
        """,
        node_id,
    )
    assert row is not None, "a nonce is pending now"
    return OwnerClaim(row["database_id"], row["previous"], row["nonce"], row["is_taking"], row["code"])


async def confirm_claim(tx: Tx, name: str, nonce: str, changes_back: int | None = None) -> None:
    """The node has taken this nonce. Those older than the last KEPT are forgotten. Raises `UnknownNode`.

    With `changes_back` it came back in a state from so many changes of its owner's nonce ago. That is written into the audit
    trail once for each nonce: supervisors of one database find it out together, and any of them may confirm first.
    """
    node_id = await _locked(tx, name)
    await tx.execute(
        """
        UPDATE node_nonces SET is_pending = false, is_taking = false, code = '', taken_at = atlas_now()
        WHERE node_id = $1 AND nonce = $2::uuid AND is_pending
        """,
        node_id,
        nonce,
    )
    if changes_back is not None:
        tag = await tx.execute(
            """
            UPDATE node_nonces SET restored_from = $3
            WHERE node_id = $1 AND nonce = $2::uuid AND restored_from IS NULL
            """,
            node_id,
            nonce,
            changes_back,
        )
        if rows_of(tag):
            details = {"changes_back": changes_back}
            await record_audit(tx, "node", "node_restored", subject=f"node:{name}", details=details)
    await tx.execute(
        """
        DELETE FROM node_nonces WHERE node_id = $1 AND id <= (
            SELECT id FROM node_nonces WHERE node_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)
        """,
        node_id,
        KEPT,
    )


async def former_nonces(tx: Tx, name: str) -> list[str]:
    """The nonces that this node took from this database, the newest first."""
    rows = await tx.fetch(
        """
        SELECT o.nonce::text AS nonce FROM node_nonces o JOIN vpn_nodes n ON n.id = o.node_id
        WHERE n.name = $1 AND NOT o.is_pending ORDER BY o.id DESC
        """,
        name,
    )
    return [row["nonce"] for row in rows]


async def take_node(tx: Tx, name: str, code: str, *, actor: str) -> None:
    """Have this installation rule the node from now on, whoever did before. Raises `UnknownNode`.

    `code` is what `atlas node disown` printed on the node's host, "" to take it without. The node's actor says it to the node
    at its next look.
    """
    node_id = await _locked(tx, name)
    await tx.execute("DELETE FROM node_nonces WHERE node_id = $1 AND is_pending", node_id)
    await tx.execute("INSERT INTO node_nonces (node_id, is_taking, code) VALUES ($1, true, $2)", node_id, code)
    await record_audit(tx, actor, "node_taken", subject=f"node:{name}")


async def is_taking(tx: Tx, name: str) -> bool:
    """Whether an operator's word that this installation is to rule the node waits to be said to it."""
    found: bool = await tx.fetchval(
        """
        SELECT EXISTS (SELECT FROM node_nonces o JOIN vpn_nodes n ON n.id = o.node_id
                       WHERE n.name = $1 AND o.is_pending AND o.is_taking)
        """,
        name,
    )
    return found


async def _locked(tx: Tx, name: str) -> int:
    node_id: int | None = await tx.fetchval("SELECT id FROM vpn_nodes WHERE name = $1 FOR NO KEY UPDATE", name)
    if node_id is None:
        raise UnknownNode(name)
    return node_id
