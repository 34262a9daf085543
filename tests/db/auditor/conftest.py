"""One rich history for all tests here, copied for each."""

from collections.abc import AsyncIterator, Iterator

import pytest
import trio
import trio_asyncio

from tests.db.auditor.history import live
from tests.db.database import Database
from tests.postgres_cluster import Cluster


async def _live(dsn: str) -> None:
    async with trio_asyncio.open_loop():
        database = Database(dsn, keeps=True)
        await live(database)
        database.close()


@pytest.fixture(scope="session")
def lived(cluster: Cluster) -> str:
    """The name of a database in which half a year has passed."""
    name = cluster.create_database(cluster.template())
    trio.run(_live, cluster.dsn(name))
    return name


@pytest.fixture
def history_dsn(cluster: Cluster, lived: str) -> Iterator[str]:
    """The DSN of a copy of that database, which a test may spoil."""
    name = cluster.create_database(lived)
    yield cluster.dsn(name)
    cluster.drop_database(name)


@pytest.fixture
async def history(history_dsn: str) -> AsyncIterator[Database]:
    """A copy of that database, which a test may spoil."""
    async with trio_asyncio.open_loop():
        opened = Database(history_dsn, keeps=True)
        try:
            yield opened
        finally:
            opened.close()
