"""Singletons: work that one process at a time may do, held as a row with an end on database time.

The holder renews before the end and trusts itself for less than the whole time; every change of hands raises the
epoch, and what the holder writes is fenced by it. A dead holder is followed as soon as its time is up.
"""

import os
import socket
from datetime import datetime, timedelta

import attrs

from db.tx import Tx


@attrs.frozen
class Epoch:
    """Who holds a singleton."""

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


_COLUMNS = "epoch, holder, host, pid, acquired_at, renewed_at, held_until"


async def acquire_epoch(tx: Tx, name: str, holder: str, ttl_seconds: float) -> Epoch:
    """Take the singleton if nobody holds it or its holder's time is up; otherwise say who does.

    ``holder`` names this process and no other, also not its own predecessor.
    """
    row = await tx.fetchrow(
        f"""
        INSERT INTO epochs AS e (name, epoch, holder, host, pid, acquired_at, renewed_at, held_until)
        VALUES ($1, 1, $2, $3, $4, atlas_now(), atlas_now(), atlas_now() + $5::interval)
        ON CONFLICT (name) DO UPDATE
            SET epoch = e.epoch + 1, holder = excluded.holder, host = excluded.host, pid = excluded.pid,
                acquired_at = excluded.acquired_at, renewed_at = excluded.renewed_at, held_until = excluded.held_until
            WHERE e.held_until <= atlas_now()
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - our own column list
        name,
        holder,
        socket.gethostname(),
        os.getpid(),
        timedelta(seconds=ttl_seconds),
    )
    is_mine = row is not None
    if row is None:
        row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM epochs WHERE name = $1", name)  # noqa: S608 - as above
    assert row is not None, "what conflicted is committed and never deleted"
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
    )


async def renew_epoch(tx: Tx, held: Epoch, ttl_seconds: float) -> bool:
    """Hold on for ``ttl_seconds`` from now. ``False``: somebody else has it; stop at once and undo nothing."""
    tag = await tx.execute(
        """
        UPDATE epochs SET renewed_at = atlas_now(), held_until = atlas_now() + $4::interval
        WHERE name = $1 AND epoch = $2 AND holder = $3
        """,
        held.name,
        held.epoch,
        held.holder,
        timedelta(seconds=ttl_seconds),
    )
    return tag == "UPDATE 1"


async def release_epoch(tx: Tx, held: Epoch) -> bool:
    """Give it up, so that a successor need not wait. ``False``: it was somebody else's already."""
    tag = await tx.execute(
        "UPDATE epochs SET held_until = atlas_now() WHERE name = $1 AND epoch = $2 AND holder = $3",
        held.name,
        held.epoch,
        held.holder,
    )
    return tag == "UPDATE 1"
