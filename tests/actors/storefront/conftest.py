from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import database_dsn as database_dsn
