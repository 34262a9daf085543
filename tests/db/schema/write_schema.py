"""Write ``db/schema/schema.txt`` anew after a deliberate change of the schema: ``python -m tests.db.schema.write_schema``."""

import shutil

import trio
import trio_asyncio

from db.schema.describe import EXPECTED, describe_schema
from tests.db.database import Database
from tests.postgres_cluster import Cluster, temporary_root


async def _describe(dsn: str) -> str:
    async with trio_asyncio.open_loop():
        return await Database(dsn).run(describe_schema)


def main() -> None:
    """Migrate an empty database and describe it."""
    cluster = Cluster(temporary_root())
    try:
        cluster.initialise()
        cluster.start()
        EXPECTED.write_text(trio.run(_describe, cluster.dsn(cluster.template())), encoding="utf-8")
    finally:
        cluster.stop()
        shutil.rmtree(cluster.root, ignore_errors=True)


if __name__ == "__main__":
    main()
