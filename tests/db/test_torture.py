"""Twenty-four clients on eight connections replay, race and die; not a kopeck is lost, made or spent twice."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.db.database import Database
from tests.db.torture import Torture
from tests.db.torture_mix import Mix, finish, prepare, totals
from tests.postgres_cluster import Cluster

SEED = int(os.environ.get("ATLAS_TORTURE_SEED", "20260101"))
SIZE = int(os.environ.get("ATLAS_TORTURE_SIZE", "1"))
"""A campaign sets a larger one: ``ATLAS_TORTURE_SIZE=20 pytest -s tests/db/test_torture.py``."""


@pytest.fixture
def second_dsn(cluster: Cluster) -> Iterator[str]:
    name = cluster.create_database(cluster.template())
    yield cluster.dsn(name)
    cluster.drop_database(name)


async def campaign(database: Database, *, serializable: bool) -> tuple[Mix, Torture]:
    mix = await prepare(database, SIZE)
    torture = Torture(database, SEED, serializable=serializable)
    began = time.monotonic()
    await torture.run(mix.jobs)
    await finish(database, mix)
    isolation = "SERIALIZABLE" if serializable else "READ COMMITTED"
    print(f"{isolation}: {len(mix.jobs)} jobs in {time.monotonic() - began:.1f} s, {dict(torture.seen)}")
    return mix, torture


async def test_the_totals_are_those_that_the_jobs_add_up_to_at_either_isolation_level(
    database: Database, second_dsn: str
) -> None:
    mix, torture = await campaign(database, serializable=False)
    assert await totals(database) == mix.totals
    # Locks are taken in one order: nobody ever waits in a circle.
    assert torture.seen["40P01"] == 0
    # The faults that it is about have been there.
    assert torture.seen["died on the way"] > 0
    assert torture.seen["died after the commit"] > 0
    assert torture.seen["InsufficientFunds"] > 0

    second = Database(second_dsn)
    same, _ = await campaign(second, serializable=True)
    assert await totals(second) == same.totals == mix.totals
    assert await second.broken_invariants() == []
