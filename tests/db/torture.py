"""Jobs whose outcome does not depend on who is faster, run in a seeded order by clients that keep dying.

Every job is repeated until it has been answered once, as a customer's front end or a provider does, and many jobs say the
same thing twice. Whatever the order, the totals are known beforehand.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import attrs
import trio
import trio_asyncio

from db.errors import BusinessError
from db.tx import Tx
from tests.db.database import Connection, Database

CONNECTIONS = 8
CLIENTS = 24
CRASHES = 0.25
"""Of all attempts, how many die on the way."""

Work = Callable[[Tx], Awaitable[object]]


class Crashed(Exception):
    """The client's connection died, before or after the commit."""


@attrs.define
class Crashing(Connection):
    """A connection that dies before its n-th statement, cut by the client or by the server; COMMIT counts."""

    raw: Any
    statements_left: int
    by_server: Callable[[int], Awaitable[None]] | None

    async def fetch(self, query: str, /, *args: object) -> Any:
        await self._count()
        return await super().fetch(query, *args)

    async def fetchrow(self, query: str, /, *args: object) -> Any:
        await self._count()
        return await super().fetchrow(query, *args)

    async def fetchval(self, query: str, /, *args: object) -> Any:
        await self._count()
        return await super().fetchval(query, *args)

    async def execute(self, query: str, /, *args: object) -> str:
        await self._count()
        return await super().execute(query, *args)

    async def _count(self) -> None:
        self.statements_left -= 1
        if self.statements_left >= 0:
            return
        if self.by_server is not None:
            await self.by_server(self.raw.get_server_pid())
        self.raw.terminate()
        raise Crashed


@attrs.define
class Torture:
    """One run over one database."""

    database: Database
    seed: int
    serializable: bool = False
    seen: Counter[str] = attrs.field(factory=Counter)
    _dice: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    async def run(self, jobs: Sequence[Work]) -> None:
        """Let the clients do all jobs, in a seeded order, each until it has been answered."""
        order = list(jobs)
        self._dice.shuffle(order)
        queue = iter(order)
        give, take = trio.open_memory_channel[Connection](CONNECTIONS)
        for _ in range(CONNECTIONS):
            await give.send(await self._connect())

        async def client() -> None:
            for job in queue:
                while not await self._attempt(job, give, take):
                    pass

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client)
        finally:
            for _ in range(CONNECTIONS):
                take.receive_nowait().raw.terminate()

    async def _attempt(
        self, job: Work, give: trio.MemorySendChannel[Connection], take: trio.MemoryReceiveChannel[Connection]
    ) -> bool:
        connection = await take.receive()
        tx, dies_after_commit = self._doomed(connection)
        try:
            await connection.execute(
                f"BEGIN ISOLATION LEVEL {'SERIALIZABLE' if self.serializable else 'READ COMMITTED'}"
            )
            try:
                await job(tx)
            except BusinessError as refusal:
                await connection.execute("ROLLBACK")
                self.seen[type(refusal).__name__] += 1
                return True
            await connection.execute("COMMIT")
            if dies_after_commit:
                connection.raw.terminate()
                self.seen["died after the commit"] += 1
                return False
            self.seen["done"] += 1
            return True
        except Crashed:
            self.seen["died on the way"] += 1
            return False
        except asyncpg.PostgresError as error:
            self.seen[error.sqlstate or "?"] += 1
            if not self.serializable or error.sqlstate not in ("40001", "40P01"):
                raise
            await connection.execute("ROLLBACK")
            return False
        finally:
            with trio.CancelScope(shield=True):
                alive = connection if not connection.raw.is_closed() else await self._connect()
                await give.send(alive)

    def _doomed(self, connection: Connection) -> tuple[Tx, bool]:
        if self._dice.random() >= CRASHES:
            return connection, False
        step = self._dice.randrange(14)
        if step > 11:
            return connection, True
        by_server = self._kill if self._dice.random() < 0.5 else None
        return Crashing(connection.raw, step, by_server), False

    async def _kill(self, pid: int) -> None:
        # Waits until the backend is gone, as a crash is only over when its locks are.
        async with self.database.connect() as control:
            await control.execute("SELECT pg_terminate_backend($1, 5000)", pid)

    async def _connect(self) -> Connection:
        return Connection(await trio_asyncio.aio_as_trio(asyncpg.connect)(self.database.dsn))
