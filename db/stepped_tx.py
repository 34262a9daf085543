"""A connection's statements for code that owns the connection: migrations, an operator's session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from db.driver import DriverConnection
from db.tx import Row


class SteppedTx:
    """`db.tx.Tx` on a connection that nobody else uses; transactions are begun and ended by whoever uses it.

    Each statement runs in the current task. Errors come out as the driver raises them.
    """

    __slots__ = ("_driver", "_raw")

    def __init__(self, driver: DriverConnection) -> None:
        self._driver = driver
        self._raw = driver.raw

    async def fetch(self, query: str, /, *args: object) -> Sequence[Row]:
        """Run one statement and return all its rows."""
        rows: Sequence[Row] = await self._driver.step(self._raw.fetch(query, *args))
        return rows

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        """Run one statement and return its first row, or None if it has none."""
        row: Row | None = await self._driver.step(self._raw.fetchrow(query, *args))
        return row

    async def fetchval(self, query: str, /, *args: object) -> Any:
        """Run one statement and return the first column of its first row, or None if it has none."""
        return await self._driver.step(self._raw.fetchval(query, *args))

    async def execute(self, query: str, /, *args: object) -> str:
        """Run one statement (several without arguments) and return the server's command tag."""
        status: str = await self._driver.step(self._raw.execute(query, *args))
        return status
