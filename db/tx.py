"""What a business function may do with a transaction: run a statement in four ways, take a lock until its end, no more.

Every business function of this room is `async def f(tx: Tx, ...)` and awaits `tx` alone. The caller owns the
transaction: it opened it (READ COMMITTED), it commits it, and it rolls it back when the function raises. That is what
lets the pool run the function on a leased connection, a session run it for an operator, and a test run it on a plain
`asyncpg.Connection`. Advisory locks are always transaction-level and always in the two-integer form.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Protocol


class Row(Protocol):
    """One row of a result, read by column name; an `asyncpg.Record` is one.

    Iterating over a record yields values, not names, so this promises less than a `Mapping` on purpose.
    """

    def __getitem__(self, column: str, /) -> Any: ...


class Tx(Protocol):
    """An open transaction on one connection, as far as business functions may use it.

    Each method is one round trip. Errors of the server come out as the driver raises them; after one the transaction
    is aborted and the caller must roll back.
    """

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        """Run one statement and return all its rows."""

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        """Run one statement and return its first row, or `None` if it has none."""

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or `None` if it has none."""

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag, such as `UPDATE 1`."""


def rows_of(tag: str) -> int:
    """How many rows a statement changed, from the server's command tag: 3 of `UPDATE 3` and of `INSERT 0 3`."""
    return int(tag.rsplit(maxsplit=1)[-1])


_INT4_MAX = 2**31 - 1


class LockSpace(IntEnum):
    """The first integer of an advisory lock says what the second one counts."""

    MIGRATION = 0x4154_4C00
    """One lock: bringing the schema up to date."""
    KEY = 0x4154_4C01
    """One lock for each row of `vpn_keys`, by id."""


async def lock_for_transaction(tx: Tx, space: LockSpace, number: int) -> None:
    """Wait for the lock (bounded by the session's `lock_timeout`) and keep it until the transaction ends.

    Numbers beyond 31 bits share locks with smaller ones: that costs a wait now and then, never an exclusion.
    """
    await tx.execute("SELECT pg_advisory_xact_lock($1, $2)", int(space), number & _INT4_MAX)
