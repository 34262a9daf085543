"""The workloads of the group `leases`, each for our pool and for asyncpg's own."""
