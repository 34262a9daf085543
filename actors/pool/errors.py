"""The errors of requests that get no connection: what happened, in which state the pool is, and what changes it.

Built from plain values, so that this module knows nothing of the pool's state. Seconds throughout; `described` is the
sentence of `PoolState.describe`.
"""

from __future__ import annotations

from db.errors import LeaseShed, PoolCrashed, PoolDown


def pool_down(pool: str, label: str, down_for: float, cause: str) -> PoolDown:
    """The database is away, and with it every connection."""
    return PoolDown(
        f'"{label}" was refused by {pool}: the database has been away for {down_for:.1f} s. {cause}. '
        "The pool goes on trying; nothing was sent"
    )


def pool_away(pool: str, label: str, waited: float, cause: str, described: str) -> PoolDown:
    """The request waited, and the database has not answered on any connection meanwhile."""
    why = cause or "it has answered on no connection yet (database.connect_timeout bounds each attempt)"
    return PoolDown(
        f'"{label}" was refused by {pool} after {waited:.2f} s: the database is away, no connection to it is usable. '
        f"{why}. {described}. The pool goes on trying; nothing was sent"
    )


def queue_full(pool: str, label: str, waiting: int, limit: int, described: str) -> LeaseShed:
    """So many wait already that one more is refused at once."""
    return LeaseShed(
        f'"{label}" was refused by {pool} at once: {waiting} requests are waiting already '
        f"(pool.max_waiting = {limit}). {described}"
    )


def request_shed(pool: str, label: str, waited: float, slow_for: float, target: float, described: str) -> LeaseShed:
    """The queue is slow, and this request would be served too late."""
    return LeaseShed(
        f'"{label}" was refused by {pool} after {waited:.2f} s: for {slow_for:.1f} s no request has got a connection '
        f"within {target:g} s (pool.slow_target), so it would come too late. {described}"
    )


def pool_crashed(pool: str, label: str, why: str) -> PoolCrashed:
    """The pool ended while the request waited."""
    return PoolCrashed(
        f'"{label}" got no connection: its pool {pool} ended ({why}). Nothing was sent; it may be repeated'
    )
