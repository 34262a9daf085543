"""Cases of a move: what could not be derived from the rows that are moved, each with its numbers."""

import json
from collections.abc import Mapping, Sequence

from db.tx import Tx

MoveCase = tuple[str, str, int | None, Mapping[str, object]]
"""(kind, subject, customer, details)."""


async def open_move_cases(tx: Tx, cases: Sequence[MoveCase]) -> None:
    """Open these cases and tell the operator of each, all in one statement."""
    await tx.execute(
        """
        WITH opened AS (
            INSERT INTO cases (kind, subject, customer_id, details)
            SELECT o.kind, o.subject, o.customer_id, o.details::jsonb
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS o (kind, subject, customer_id, details)
            RETURNING id, kind, subject, details
        )
        INSERT INTO outbox (kind, subject, payload)
        SELECT 'case_opened', 'case:' || id, jsonb_build_object('kind', kind, 'subject', subject) || details FROM opened
        """,
        [kind for kind, _, _, _ in cases],
        [subject for _, subject, _, _ in cases],
        [customer_id for _, _, customer_id, _ in cases],
        [json.dumps(details) for _, _, _, details in cases],
    )
