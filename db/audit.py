"""The audit trail: who did what to whom. Append-only; never a full UUID, a link or a secret."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import attrs

from db.tx import Tx


@attrs.frozen
class AuditEntry:
    """One row of ``audit``."""

    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, object]


async def record(
    tx: Tx,
    actor: str,
    action: str,
    *,
    customer_id: int | None = None,
    subject: str = "",
    details: Mapping[str, object] | None = None,
) -> None:
    """Write down that ``actor`` did ``action``, in the transaction that did it. Raises ``ValueError`` on a UUID."""
    values = details or {}
    if any(isinstance(value, UUID) for value in values.values()):
        raise ValueError(f"audit entry {action!r} would carry a full UUID")
    await tx.execute(
        "INSERT INTO audit (actor, action, customer_id, subject, details) VALUES ($1, $2, $3, $4, $5::text::jsonb)",
        actor,
        action,
        customer_id,
        subject,
        json.dumps(values),
    )


async def history(tx: Tx, customer_id: int, limit: int = 50) -> Sequence[AuditEntry]:
    """The last entries about a customer, newest first."""
    rows = await tx.fetch(
        """
        SELECT at, actor, action, subject, details::text AS details FROM audit
        WHERE customer_id = $1 ORDER BY at DESC, id DESC LIMIT $2
        """,
        customer_id,
        limit,
    )
    return [
        AuditEntry(row["at"], row["actor"], row["action"], row["subject"], json.loads(row["details"])) for row in rows
    ]
