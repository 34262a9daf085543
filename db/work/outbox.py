"""The outbox: everything that has to leave the process is first a row, written with the fact it tells.

Delivery is at least once: a message is claimed, sent outside any transaction, and settled. Its key (customer, kind,
subject) makes telling a fact twice one message.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from db.customers import note_unreachable
from db.tx import Tx, rows_of
from db.work.audit import refuse_uuids
from db.work.claims import Claimer, claimable, claimed, released, unclaimed


@attrs.frozen
class OutboxMessage:
    """A claimed message. `epoch` fences its settling: after a later claim nothing of this one is written."""

    id: int
    epoch: int
    customer_id: int | None
    """`None`: for the operator."""
    telegram_id: int | None
    language: str | None
    kind: str
    subject: str
    payload: Mapping[str, object]
    attempts: int
    created_at: datetime
    claimed_at: datetime
    """Database time, which everything in a payload is measured by."""


async def add_message(
    tx: Tx,
    kind: str,
    subject: str,
    *,
    customer_id: int | None = None,
    payload: Mapping[str, object] | None = None,
) -> None:
    """Queue a message to the customer, or to the operator without one. A second one with the same key is ignored.

    Payloads hold ids and amounts, never a full UUID or a link; raises `ValueError` on a UUID.
    """
    values = payload or {}
    refuse_uuids(values.values(), f"message {kind!r}")
    await tx.execute(
        """
        WITH added AS (
            INSERT INTO outbox (customer_id, kind, subject, payload) VALUES ($1, $2, $3, $4::text::jsonb)
            ON CONFLICT (customer_id, kind, subject) DO NOTHING
            RETURNING 1
        )
        SELECT pg_notify('atlas_wake', 'notifications') FROM added
        """,
        customer_id,
        kind,
        subject,
        json.dumps(values),
    )


async def claim_messages(tx: Tx, owner: Claimer, limit: int, lease_seconds: float) -> Sequence[OutboxMessage]:
    """Claim up to `limit` due messages, oldest due first, for `lease_seconds` of database time."""
    rows = await tx.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM outbox
            WHERE state = 'pending' AND next_attempt_at <= (SELECT atlas_now())
              AND {claimable()}
            ORDER BY next_attempt_at, id LIMIT $3
            FOR NO KEY UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE outbox o
            SET {claimed("atlas_now() + $4::interval")}
            FROM due WHERE o.id = due.id
            RETURNING o.*
        )
        SELECT m.id, m.claim_epoch, m.customer_id, c.telegram_id, c.language, m.kind, m.subject,
               m.payload::text AS payload, m.attempts, m.created_at, atlas_now() AS claimed_at
        FROM claimed m LEFT JOIN customers c ON c.id = m.customer_id
        ORDER BY m.next_attempt_at, m.id
        """,  # noqa: S608 - our own fragments
        owner.name,
        owner.incarnation,
        limit,
        timedelta(seconds=lease_seconds),
    )
    return [
        OutboxMessage(
            id=row["id"],
            epoch=row["claim_epoch"],
            customer_id=row["customer_id"],
            telegram_id=row["telegram_id"],
            language=row["language"],
            kind=row["kind"],
            subject=row["subject"],
            payload=json.loads(row["payload"]),
            attempts=row["attempts"],
            created_at=row["created_at"],
            claimed_at=row["claimed_at"],
        )
        for row in rows
    ]


async def mark_sent(tx: Tx, message: OutboxMessage) -> bool:
    """The message was delivered. `False`: the claim was lost meanwhile and nothing was written."""
    return await _settle(tx, message, "sent", "")


async def mark_undeliverable(tx: Tx, message: OutboxMessage, error: str, *, is_unreachable: bool = False) -> bool:
    """The message can never be delivered: terminal for this message only. `False`: the claim was lost meanwhile.

    `is_unreachable`: because the customer cannot be reached, which is noted as well, unless there was a contact after
    the message had been claimed.
    """
    settled = await _settle(tx, message, "undeliverable", error)
    if settled and is_unreachable and message.customer_id is not None:
        await note_unreachable(tx, message.customer_id, message.claimed_at)
    return settled


async def postpone_message(tx: Tx, message: OutboxMessage, delay_seconds: float, why: str = "") -> bool:
    """Give the claim back: nothing was sent and no attempt is counted. `False`: the claim was lost meanwhile."""
    tag = await tx.execute(
        f"""
        UPDATE outbox SET next_attempt_at = atlas_now() + $3::interval, last_error = coalesce(nullif($4, ''), last_error),
                          {released()}
        WHERE id = $1 AND claim_epoch = $2 AND state = 'pending'
        """,  # noqa: S608 - our own fragments
        message.id,
        message.epoch,
        timedelta(seconds=delay_seconds),
        why[:500],
    )
    return rows_of(tag) == 1


async def retry_message(tx: Tx, message: OutboxMessage, delay_seconds: float, error: str) -> bool:
    """Try again after `delay_seconds`; the attempt counts. `False`: the claim was lost meanwhile."""
    tag = await tx.execute(
        f"""
        UPDATE outbox SET attempts = attempts + 1, next_attempt_at = atlas_now() + $3::interval, last_error = $4,
                          {released()}
        WHERE id = $1 AND claim_epoch = $2 AND state = 'pending'
        """,  # noqa: S608 - our own fragments
        message.id,
        message.epoch,
        timedelta(seconds=delay_seconds),
        error[:500],
    )
    return rows_of(tag) == 1


async def spread_messages(tx: Tx, surplus: Sequence[OutboxMessage], seconds_apart: float) -> int:
    """Give claims on a receiver's messages back, and let everything that waits for that receiver come due one by one.

    One every `seconds_apart`, the first one after that, in their order; no attempt is counted. What waits for its next
    attempt, what others have claimed, and claims that were lost meanwhile are left alone. Returns how many come due so.
    """
    rows = await tx.fetch(
        f"""
        WITH ours AS (
            SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS o (id, epoch)
        ), waiting AS MATERIALIZED (
            SELECT id, next_attempt_at FROM outbox
            WHERE state = 'pending' AND customer_id IS NOT DISTINCT FROM $3
              AND (next_attempt_at <= (SELECT atlas_now()) OR (attempts = 0 AND last_error IS NULL))
              AND ({unclaimed()}
                   OR EXISTS (SELECT FROM ours WHERE ours.id = outbox.id AND ours.epoch = outbox.claim_epoch))
            FOR NO KEY UPDATE SKIP LOCKED
        ), placed AS (
            SELECT id, row_number() OVER (ORDER BY next_attempt_at, id) AS place FROM waiting
        )
        UPDATE outbox SET next_attempt_at = atlas_now() + placed.place * $4::interval,
                          {released()}
        FROM placed WHERE outbox.id = placed.id
        RETURNING outbox.id
        """,  # noqa: S608 - our own fragments
        [message.id for message in surplus],
        [message.epoch for message in surplus],
        surplus[0].customer_id,
        timedelta(seconds=seconds_apart),
    )
    return len(rows)


async def prune_messages(tx: Tx, limit: int = 1000, *, older_than: timedelta) -> int:
    """Take away up to `limit` messages that were settled longer ago than this, oldest first; returns how many."""
    tag = await tx.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT id FROM outbox WHERE settled_at < (SELECT atlas_now()) - $1::interval
            ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM outbox USING old WHERE outbox.id = old.id
        """,
        older_than,
        limit,
    )
    return rows_of(tag)


async def _settle(tx: Tx, message: OutboxMessage, state: str, error: str) -> bool:
    tag = await tx.execute(
        f"""
        UPDATE outbox SET state = $3, settled_at = atlas_now(), attempts = attempts + 1, last_error = nullif($4, ''),
                          {released()}
        WHERE id = $1 AND claim_epoch = $2 AND state = 'pending'
        """,  # noqa: S608 - our own fragments
        message.id,
        message.epoch,
        state,
        error[:500],
    )
    return rows_of(tag) == 1
