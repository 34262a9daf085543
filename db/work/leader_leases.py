"""Singletons: work that one process at a time may do, held as a row with an end on database time.

The holder renews before the end and trusts itself for less than the whole time; every change of hands raises the
epoch, and what the holder writes is fenced by it. A dead holder is followed as soon as its time is up.

Whoever takes or renews a singleton names the schema that it was written for: the database refuses programs that are older
than its last exclusive migration.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import attrs

from db.errors import BusinessError
from db.schema.migrate import load_migrations
from db.tx import Row, Tx, rows_of
from db.work.claims import host_and_pid


class LostEpoch(BusinessError):
    """Another process holds the singleton by now: stop at once and undo nothing."""


@attrs.frozen
class Epoch:
    """Which process holds a singleton, since when and until when, on database time."""

    name: str
    epoch: int
    holder: str
    host: str
    pid: int
    acquired_at: datetime
    renewed_at: datetime
    held_until: datetime
    is_mine: bool
    """Whether the caller got it; otherwise the rest says who has it, and until when at least."""
    read_at: datetime
    """The database's time when this was read."""

    @property
    def seconds_left(self) -> float:
        """How long it was held for, when this was read; not negative."""
        return max(0.0, (self.held_until - self.read_at).total_seconds())


_COLUMNS = "epoch, holder, host, pid, acquired_at, renewed_at, held_until, atlas_now() AS read_at"


async def acquire_epoch(
    tx: Tx, name: str, holder: str, ttl_seconds: float, is_dead: Callable[[Epoch], bool] | None = None
) -> Epoch:
    """Take the singleton for `ttl_seconds` if it is free or its holder's time is up; otherwise return who holds it.

    `is_mine` of the result says which. The epoch is raised with every change of hands.

    `holder` names this process and no other, also not its own predecessor. `is_dead` is asked about a holder whose
    time is not up: yes takes the singleton over at once, so it may be said only of a process that has provably ended.
    """
    row = await tx.fetchrow(
        f"""
        INSERT INTO epochs AS e (name, epoch, holder, host, pid, acquired_at, renewed_at, held_until, schema_version)
        VALUES ($1, 1, $2, $3, $4, atlas_now(), atlas_now(), atlas_now() + $5::interval, $6)
        ON CONFLICT (name) DO UPDATE
            SET epoch = e.epoch + 1, holder = excluded.holder, host = excluded.host, pid = excluded.pid,
                acquired_at = excluded.acquired_at, renewed_at = excluded.renewed_at, held_until = excluded.held_until,
                schema_version = $6
            WHERE e.held_until <= atlas_now()
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - our own column list
        name,
        holder,
        *host_and_pid(),
        timedelta(seconds=ttl_seconds),
        len(load_migrations()),
    )
    if row is not None:
        return _epoch(name, row, is_mine=True)
    found = await find_epoch(tx, name)
    assert found is not None, "what conflicted is committed and never deleted"
    if is_dead is None or not is_dead(found):
        return found
    row = await tx.fetchrow(
        f"""
        UPDATE epochs
        SET epoch = epoch + 1, holder = $4, host = $5, pid = $6, acquired_at = atlas_now(), renewed_at = atlas_now(),
            held_until = atlas_now() + $7::interval, schema_version = $8
        WHERE name = $1 AND epoch = $2 AND holder = $3
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - as above
        name,
        found.epoch,
        found.holder,
        holder,
        *host_and_pid(),
        timedelta(seconds=ttl_seconds),
        len(load_migrations()),
    )
    return found if row is None else _epoch(name, row, is_mine=True)


async def find_epoch(tx: Tx, name: str) -> Epoch | None:
    """Who holds the singleton now, or held it last; `None` if it was never held."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM epochs WHERE name = $1", name)  # noqa: S608 - our own column list
    return None if row is None else _epoch(name, row, is_mine=False)


async def check_epoch(tx: Tx, epoch: Epoch) -> None:
    """Keep the epoch from changing until this transaction ends. Raises `LostEpoch` if another process holds it by now."""
    row = await tx.fetchrow("SELECT FROM epochs WHERE name = $1 AND epoch = $2 FOR SHARE", epoch.name, epoch.epoch)
    if row is None:
        raise LostEpoch(f"the epoch {epoch.epoch} of {epoch.name!r} is over")


async def renew_epoch(tx: Tx, epoch: Epoch, ttl_seconds: float) -> bool:
    """Hold on for `ttl_seconds` from now. `False`: another process holds it; stop at once and undo nothing."""
    tag = await tx.execute(
        """
        UPDATE epochs SET renewed_at = atlas_now(), held_until = atlas_now() + $4::interval, schema_version = $5
        WHERE name = $1 AND epoch = $2 AND holder = $3
        """,
        epoch.name,
        epoch.epoch,
        epoch.holder,
        timedelta(seconds=ttl_seconds),
        len(load_migrations()),
    )
    return rows_of(tag) == 1


async def release_epoch(tx: Tx, epoch: Epoch) -> bool:
    """Give the singleton up, so that a successor need not wait. `False`: another process held it already."""
    tag = await tx.execute(
        "UPDATE epochs SET held_until = atlas_now() WHERE name = $1 AND epoch = $2 AND holder = $3",
        epoch.name,
        epoch.epoch,
        epoch.holder,
    )
    return rows_of(tag) == 1


def _epoch(name: str, row: Row, *, is_mine: bool) -> Epoch:
    return Epoch(
        name=name,
        epoch=row["epoch"],
        holder=row["holder"],
        host=row["host"],
        pid=row["pid"],
        acquired_at=row["acquired_at"],
        renewed_at=row["renewed_at"],
        held_until=row["held_until"],
        is_mine=is_mine,
        read_at=row["read_at"],
    )
