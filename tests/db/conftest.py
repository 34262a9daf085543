"""Each test gets a database of its own; after each one the money invariants must hold."""

from collections.abc import AsyncIterator

import pytest
import trio_asyncio

from tests.db.database import Database
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import database_dsn as database_dsn
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    """A migrated test database; what the test leaves behind must satisfy every invariant that holds at each commit."""
    async with trio_asyncio.open_loop():
        opened = Database(database_dsn, keeps=True)
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture
async def empty_database(empty_database_dsn: str) -> AsyncIterator[Database]:
    """A database without a schema."""
    async with trio_asyncio.open_loop():
        yield Database(empty_database_dsn)
