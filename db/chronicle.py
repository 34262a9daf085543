"""What an operation leaves behind: its entry in the audit trail and the messages that tell it, in one statement."""

import json
from collections.abc import Mapping
from uuid import UUID

import attrs

from db.tx import Tx


@attrs.frozen
class Notice:
    """A message to the customer, or to the operator without one, as ``db.outbox.add_message`` queues it."""

    kind: str
    subject: str
    customer_id: int | None = None
    payload: Mapping[str, object] = attrs.field(factory=dict)


async def write_down(
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
