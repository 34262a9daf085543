"""Cases: what the rules cannot settle waits here, visibly, for a human."""

import json
from collections.abc import Mapping

from db.outbox import add_message
from db.tx import Tx


async def open_case(
    tx: Tx,
    kind: str,
    subject: str,
    *,
    customer_id: int | None = None,
    money_in_id: int | None = None,
    key_row: int | None = None,
    details: Mapping[str, object] | None = None,
) -> int:
    """Open a case, tell the operator, and return its number. The same kind and subject again is the same case."""
    number: int = await tx.fetchval(
        """
        INSERT INTO cases (kind, subject, customer_id, money_in_id, key_id, details)
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
        ON CONFLICT (kind, subject) DO UPDATE SET kind = excluded.kind
        RETURNING id
        """,
        kind,
        subject,
        customer_id,
        money_in_id,
        key_row,
        json.dumps(details or {}),
    )
    await add_message(
        tx, "case_opened", f"case:{number}", payload={"kind": kind, "subject": subject, **(details or {})}
    )
    return number
