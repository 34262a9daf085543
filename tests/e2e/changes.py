"""Waiting for what the service does, without sleeping: the test's own trigger announces every change of a key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import attrs
import trio
import trio_asyncio

from db.billing.invariants import Invariant, check_invariants

_ANNOUNCE = """
CREATE OR REPLACE FUNCTION announce_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('test_keys', NEW.activation_status);
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER announce_key AFTER INSERT OR UPDATE ON vpn_keys FOR EACH ROW EXECUTE FUNCTION announce_key();
"""


@attrs.define(eq=False)
class Watch:
    """A connection of the test's own to the service's database."""

    _connection: asyncpg.Connection
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def rows(self, query: str, *arguments: object) -> list[dict[str, object]]:
        """Run a query and return its rows."""
        found = await trio_asyncio.aio_as_trio(self._connection.fetch)(query, *arguments)
        return [dict(row) for row in found]

    async def value(self, query: str, *arguments: object) -> object:
        """Run a query and return the first column of its first row."""
        return await trio_asyncio.aio_as_trio(self._connection.fetchval)(query, *arguments)

    async def until(self, is_so: Callable[[], Awaitable[bool]], *, within: float = 90.0) -> None:
        """Return once `is_so` answers yes; it is asked again after every change of a key."""
        with trio.fail_after(within):
            while True:
                changed = self._changed
                if await is_so():
                    return
                await changed.wait()

    async def broken_invariants(self) -> list[Invariant]:
        """The money invariants that do not hold."""
        checked = await trio_asyncio.aio_as_trio(check_invariants)(self._connection)
        return [invariant for invariant in checked if not invariant.holds]

    async def status_of(self, telegram_id: int) -> str | None:
        """The activation status of the customer's newest key."""
        found = await self.value(
            """
            SELECT k.activation_status FROM vpn_keys k
            JOIN subscriptions s ON s.id = k.subscription_id
            JOIN customers c ON c.id = s.customer_id
            WHERE c.telegram_id = $1 ORDER BY k.id DESC LIMIT 1
            """,
            telegram_id,
        )
        return None if found is None else str(found)

    async def until_status(self, telegram_id: int, status: str, *, within: float = 90.0) -> None:
        """Return once the customer's newest key has this status."""

        async def is_so() -> bool:
            return await self.status_of(telegram_id) == status

        await self.until(is_so, within=within)

    def _on_change(self, *_: object) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def watch(dsn: str) -> AsyncIterator[Watch]:
    """Connect to the service's database and announce changes of keys to this test."""
    async with trio_asyncio.open_loop():
        connection = await trio_asyncio.aio_as_trio(asyncpg.connect)(dsn)
        found = Watch(connection)
        try:
            await trio_asyncio.aio_as_trio(connection.execute)(_ANNOUNCE)
            await trio_asyncio.aio_as_trio(connection.add_listener)("test_keys", found._on_change)
            yield found
        finally:
            with trio.CancelScope(shield=True):
                await trio_asyncio.aio_as_trio(connection.close)()
