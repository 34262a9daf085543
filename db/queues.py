"""What waits for each worker that claims rows: how much is due and late, which rows fail and why, and one row handled by hand.

A row is tried anew by making it due; the worker that claims it decides as always. Only a message can be given up here: a key, a
renewal and a provider's event have consequences for money, and end by operations of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from db.errors import BusinessError
from db.tx import Tx
from db.work.audit import record_audit
from db.work.claims import unclaimed

ROWS: Final = 20
"""Rows of a worker that are shown: failing ones first, the longest due first."""
COUNTED: Final = 10_000
"""Rows that are counted at most: beyond that a count says so instead of reading a whole backlog."""
LATE: Final = "5 minutes"
"""How long a row may be due before it is late; every worker looks more often."""


@attrs.frozen
class _Queue:
    worker: str
    table: str
    key: str
    due: str
    open: str
    failures: str
    what: str
    can_be_given_up: bool = False


_QUEUES: Final[Sequence[_Queue]] = (
    _Queue(
        "activation",
        "vpn_keys",
        "id",
        "next_attempt_at",
        "activation_status = 'pending'",
        "attempts",
        "left(q.key_id, 8) || '…'",
    ),
    _Queue(
        "fast_expiry",
        "vpn_keys",
        "id",
        "next_attempt_at",
        "activation_status = 'removing'",
        "attempts",
        "left(q.key_id, 8) || '…'",
    ),
    _Queue(
        "auto_renewal", "renewal_schedule", "subscription_id", "due_at", "due_at IS NOT NULL", "failures", "q.state"
    ),
    _Queue(
        "notifications",
        "outbox",
        "id",
        "next_attempt_at",
        "state = 'pending'",
        "attempts",
        "q.kind",
        can_be_given_up=True,
    ),
    _Queue(
        "provider events",
        "provider_events",
        "id",
        "next_attempt_at",
        "state = 'received'",
        "attempts",
        "q.provider || ' ' || q.event_id",
    ),
    _Queue(
        "invoices",
        "invoices",
        "id",
        "next_attempt_at",
        "state = 'open' AND watched",
        "attempts",
        "q.provider || ' order ' || q.order_id",
    ),
    _Queue(
        "provider refunds",
        "provider_refunds",
        "id",
        "next_attempt_at",
        "state IN ('asking', 'pending')",
        "attempts",
        "'charge ' || q.money_in_id",
    ),
)
_BY_NAME: Final[Mapping[str, _Queue]] = {one.worker: one for one in _QUEUES}
_WORKER: Final = {
    "provider events": "payment_watcher",
    "invoices": "payment_watcher",
    "provider refunds": "payment_watcher",
}
"""The actor of queues that share one."""


@attrs.frozen
class QueuedRow:
    """A row that is due or has failed."""

    number: int
    what: str
    failures: int
    why: str
    due_at: datetime
    is_late: bool
    is_claimed: bool
    """A worker is at it."""


@attrs.frozen
class Queue:
    """What waits for one worker. Counts stop at COUNTED."""

    name: str
    actor: str
    waiting: int
    due: int
    late: int
    failing: int
    rows: Sequence[QueuedRow]
    can_be_given_up: bool


async def read_queues(tx: Tx) -> Sequence[Queue]:
    """All queues."""
    return [await _read(tx, one) for one in _QUEUES]


async def retry_row(tx: Tx, queue: str, number: int, *, actor: str) -> str:
    """Make a row due now and wake its worker, if that can be woken; its failures stay counted. Returns the worker's name.

    Raises BusinessError, and changes nothing, if there is no such row that waits, or a worker is at it.
    """
    one = _find(queue)
    found = await tx.fetchval(
        f"UPDATE {one.table} SET {one.due} = atlas_now() "  # noqa: S608  # our own texts
        f"WHERE {one.key} = $1 AND {one.open} AND ({unclaimed()}) RETURNING {one.key}",
        number,
    )
    if found is None:
        raise _nothing_there(queue, number)
    name = _WORKER.get(queue, queue)
    await tx.execute("SELECT pg_notify('atlas_wake', $1)", name)
    await record_audit(tx, actor, "work.retry", subject=f"{queue} {number}")
    return name


async def give_up_row(tx: Tx, queue: str, number: int, *, actor: str) -> None:
    """Give up a message that waits: it is not sent any more. Raises BusinessError as `retry_row` does, and for other rows."""
    one = _find(queue)
    if not one.can_be_given_up:
        raise BusinessError(
            f"what waits for {queue} is not given up: end the access, refund the charge or close its case"
        )
    found = await tx.fetchval(
        f"UPDATE outbox SET state = 'undeliverable', settled_at = atlas_now(), last_error = 'given up by an operator' "  # noqa: S608  # as above
        f"WHERE id = $1 AND {one.open} AND ({unclaimed()}) RETURNING id",
        number,
    )
    if found is None:
        raise _nothing_there(queue, number)
    await record_audit(tx, actor, "work.give_up", subject=f"{queue} {number}")


def _find(queue: str) -> _Queue:
    if queue not in _BY_NAME:
        raise BusinessError(f"there is no queue {queue[:40]!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[queue]


def _nothing_there(queue: str, number: int) -> BusinessError:
    return BusinessError(f"{queue} {number} does not wait any more, or a worker is at it now; nothing was changed")


async def _read(tx: Tx, one: _Queue) -> Queue:
    counts = await tx.fetchrow(
        f"""
        SELECT count(*) AS waiting, count(*) FILTER (WHERE at <= atlas_now()) AS due,
               count(*) FILTER (WHERE at <= atlas_now() - $1::text::interval) AS late,
               count(*) FILTER (WHERE failures > 0) AS failing
        FROM (SELECT {one.due} AS at, {one.failures} AS failures FROM {one.table}
              WHERE {one.open} ORDER BY {one.due} LIMIT {COUNTED}) AS q
        """,  # noqa: S608  # our own texts
        LATE,
    )
    rows = await tx.fetch(
        f"""
        SELECT q.{one.key} AS number, {one.what} AS what, q.{one.failures} AS failures, coalesce(q.last_error, '') AS why,
               q.{one.due} AS due_at, q.{one.due} <= atlas_now() - $1::text::interval AS is_late,
               coalesce(q.claim_until > atlas_now(), false) AS is_claimed
        FROM (SELECT * FROM {one.table} WHERE {one.open} ORDER BY {one.due} LIMIT {COUNTED}) AS q
        WHERE q.{one.failures} > 0 OR q.{one.due} <= atlas_now()
        ORDER BY q.{one.failures} = 0, q.{one.due}, q.{one.key} LIMIT {ROWS}
        """,  # noqa: S608  # as above
        LATE,
    )
    assert counts is not None, "aggregates are one row"
    return Queue(
        one.worker,
        _WORKER.get(one.worker, one.worker),
        counts["waiting"],
        counts["due"],
        counts["late"],
        counts["failing"],
        [QueuedRow(**{field.name: row[field.name] for field in attrs.fields(QueuedRow)}) for row in rows],
        one.can_be_given_up,
    )
