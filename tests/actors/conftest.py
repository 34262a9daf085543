"""The database for the actors' tests, and the bridges on which the pool's own tests run."""

from __future__ import annotations

import pytest

from tests.actors.pool_fixtures import BRIDGE, wanted_bridges
from tests.conftest import count_bridges
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import database_dsn as database_dsn
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn

_FIXTURE = "pool_bridge"
_SERVERS = {"empty_database_dsn", "database_dsn", "own_cluster"}
"""A test that asks for none of these opens no connection, on whatever bridge."""


@pytest.fixture(autouse=True)
def pool_bridge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bridge of the pools of this test: each in turn for the pool's own tests, else the first that is wanted."""
    monkeypatch.setattr(BRIDGE, "name", getattr(request, "param", wanted_bridges()[0]))
    return BRIDGE.name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    of_the_pool = metafunc.module.__name__.startswith("tests.actors.pool.")
    if of_the_pool and not _SERVERS.isdisjoint(metafunc.fixturenames):
        metafunc.parametrize(_FIXTURE, wanted_bridges(), indirect=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    count_bridges(session.config, BRIDGE.taken)
