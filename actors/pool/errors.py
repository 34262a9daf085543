"""The errors of requests that get no connection: what happened, in which state the pool is, and what changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.pool.report import describe_pool
from db.errors import LeaseShed, PoolCrashed, PoolDown

if TYPE_CHECKING:
    from actors.pool.state import PoolState


def pool_down(book: PoolState, label: str) -> PoolDown:
    """The database is away, and with it every connection."""
    down_for = trio.current_time() - book.state_since
    return PoolDown(
        f'"{label}" was refused by {book.name}: the database has been away for {down_for:.1f} s. {book.cause}. '
        "The pool goes on trying; nothing was sent"
    )


def queue_full(book: PoolState, label: str) -> LeaseShed:
    """So many wait already that one more is refused at once."""
    return LeaseShed(
        f'"{label}" was refused by {book.name} at once: {len(book.queue)} requests are waiting already '
        f"(pool.max_waiting = {book.settings.max_waiting}). {describe_pool(book)}"
    )


def request_shed(book: PoolState, label: str, waited: float, slow_for: float) -> LeaseShed:
    """The queue is slow, and this request would be served too late."""
    return LeaseShed(
        f'"{label}" was refused by {book.name} after {waited:.2f} s: for {slow_for:.1f} s no request has got a connection '
        f"within {book.settings.slow_target:g} s (pool.slow_target), so it would come too late. {describe_pool(book)}"
    )


def pool_crashed(pool: str, label: str, why: str) -> PoolCrashed:
    """The pool ended while the request waited."""
    return PoolCrashed(
        f'"{label}" got no connection: its pool {pool} ended ({why}). Nothing was sent; it may be repeated'
    )
