"""The database servers of the tests of whole installations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.made_cluster import remove_clusters
from tests.postgres_cluster import cluster, empty_database_dsn

__all__ = ["cluster", "empty_database_dsn"]


@pytest.fixture(scope="session", autouse=True)
def _made_clusters() -> Iterator[None]:
    """What installations begin with is removed at the end."""
    yield
    remove_clusters()
