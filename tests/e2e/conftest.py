"""A running installation for tests that only ask it something."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.stack import Stack, stack
from tests.postgres_cluster import cluster, empty_database_dsn

__all__ = ["cluster", "empty_database_dsn", "running_stack"]


@pytest.fixture
async def running_stack() -> AsyncIterator[Stack]:
    """An installation of the test's own, up."""
    async with stack() as here, here.running():
        yield here
