"""How the template database of the test cluster gets its schema."""

import asyncpg
import trio_asyncio

from db.schema.migrate import migrate


def build_template(dsn: str) -> None:
    """Bring the database at ``dsn`` to the current schema, as a test database."""
    trio_asyncio.run(trio_asyncio.aio_as_trio(_build), dsn)


async def _build(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await migrate(connection, purpose="test")
    finally:
        await connection.close()
