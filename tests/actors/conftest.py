from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import database_dsn as database_dsn
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn
