"""A PostgreSQL for the pages that read one."""

from tests.postgres_cluster import cluster as cluster
