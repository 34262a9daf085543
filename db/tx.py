"""What a business function may do with a transaction: four ways to run a statement, and nothing else.

Every business function of this room is ``async def f(tx: Tx, ...)`` and awaits ``tx`` alone. The caller owns the
transaction: it opened it (READ COMMITTED), it commits it, and it rolls it back when the function raises. That is what
lets the pool run the function on a leased connection, a session run it for an operator, and a test run it on a plain
``asyncpg.Connection``.
"""

from collections.abc import Sequence
from typing import Any, Protocol


class Row(Protocol):
    """One row of a result, read by column name; an ``asyncpg.Record`` is one.

    Iterating over a record yields values, not names, so this promises less than a ``Mapping`` on purpose.
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
        """Run one statement and return its first row, or ``None`` if it has none."""

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or ``None`` if it has none."""

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag, such as ``UPDATE 1``."""
