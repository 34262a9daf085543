"""The audit trail: who did what to whom, written with the notices that tell it, in the transaction that did it.

Append-only; never a full UUID, a link or a secret.
"""

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


@attrs.frozen
class Notice:
    """A message to the customer, or to the operator without one, as ``db.work.outbox.add_message`` queues it."""

    kind: str
    subject: str
    customer_id: int | None = None
    payload: Mapping[str, object] = attrs.field(factory=dict)


async def record_audit(
    tx: Tx,
    actor: str,
    action: str,
    *notices: Notice,
    customer_id: int | None = None,
    subject: str = "",
    details: Mapping[str, object] | None = None,
) -> None:
    """Write down that ``actor`` did ``action`` and queue the notices, in the transaction that did it.

    A notice with the key (customer, kind, subject) of an earlier one is ignored. Raises ``ValueError`` on a UUID in the
    details or a payload: neither ever carries a full one, or a link.
    """
    values = details or {}
    written = [*values.values(), *(value for notice in notices for value in notice.payload.values())]
    if any(isinstance(value, UUID) for value in written):
        raise ValueError(f"{action!r} would write down a full UUID")
    await tx.execute(
        """
        WITH noted AS (
            INSERT INTO audit (actor, action, customer_id, subject, details) VALUES ($1, $2, $3, $4, $5::text::jsonb)
        ), added AS (
            INSERT INTO outbox (customer_id, kind, subject, payload)
            SELECT customer_id, kind, subject, payload FROM jsonb_to_recordset($6::text::jsonb)
                   AS notice (customer_id bigint, kind text, subject text, payload jsonb)
            ON CONFLICT (customer_id, kind, subject) DO NOTHING
            RETURNING 1
        )
        SELECT pg_notify('atlas_wake', 'notifications') FROM added LIMIT 1
        """,
        actor,
        action,
        customer_id,
        subject,
        json.dumps(values),
        json.dumps([attrs.asdict(notice) for notice in notices], default=dict),
    )
