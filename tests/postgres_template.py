"""How the template database of the test cluster gets its schema."""

import asyncpg
import trio_asyncio


def build_template(dsn: str) -> None:
    """Bring the database at ``dsn`` to the current schema."""
    trio_asyncio.run(trio_asyncio.aio_as_trio(_build), dsn)


async def _build(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT 1")
    finally:
        await connection.close()
