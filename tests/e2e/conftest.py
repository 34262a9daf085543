"""The database server of the tests of whole installations that bring their own database."""

from __future__ import annotations

from tests.postgres_cluster import cluster, empty_database_dsn

__all__ = ["cluster", "empty_database_dsn"]
