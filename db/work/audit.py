"""The audit trail: who did what to whom, written with the notices that tell it, in the transaction that did it.

Append-only; never a full UUID, a link or a secret.
"""

import json
from collections.abc import Iterable, Mapping
from uuid import UUID

import attrs

from db.tx import Tx
from runtime.operators import Identity


def refuse_uuids(values: Iterable[object], what: str) -> None:
    """Raise `ValueError` if one of the values is a UUID: `what` would carry the secret of a link."""
    if any(isinstance(value, UUID) for value in values):
        raise ValueError(f"{what} would carry a full UUID")


def abbreviated(uuid: UUID) -> str:
    """Enough of a UUID to tell keys apart in a log, for the repr of records: `1b4e28ba…`."""
    return f"{str(uuid)[:8]}…"


@attrs.frozen
class Notice:
    """A message to the customer, or to the operator without one, as `db.work.outbox.add_message` queues it."""

    kind: str
    subject: str
    customer_id: int | None = None
    payload: Mapping[str, object] = attrs.field(factory=dict)


async def act_as(tx: Tx, who: Identity) -> None:
    """Note who acts in this transaction: each of its audit entries says the role and by what they were recognised.

    Until the transaction ends. Work of the program itself has neither.
    """
    role = "" if who.role is None else who.role.value
    await tx.execute(
        "SELECT set_config('atlas.acting_role', $1, true), set_config('atlas.acting_how', $2, true)", role, who.how
    )


async def record_refusal(tx: Tx, who: Identity, command: str, why: str) -> None:
    """Write down that somebody asked for a command that they may not run; nothing of it was done."""
    await act_as(tx, who)
    await record_audit(tx, who.actor, "refused", subject=command[:200], details={"why": why[:500]})


async def record_audit(
    tx: Tx,
    actor: str,
    action: str,
    *notices: Notice,
    customer_id: int | None = None,
    subject: str = "",
    details: Mapping[str, object] | None = None,
) -> None:
    """Write down that `actor` did `action` and queue the notices, in the transaction that did it.

    A notice with the key (customer, kind, subject) of an earlier one is ignored. Raises `ValueError` on a UUID in the
    details or a payload: neither ever carries a full one, or a link.
    """
    values = details or {}
    refuse_uuids(
        [*values.values(), *(value for notice in notices for value in notice.payload.values())],
        f"audit entry {action!r}",
    )
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
