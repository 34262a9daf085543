"""The only way to the database: pools of connections that are leased by the transaction.

Promises: a connection has at most one holder; a request is granted, refused or timed out within the time that it
names; an outage is a state, never a crash. Entry points: `client.pool_of(context, name)`, then `Pool.run(…)`;
`pool.PoolActor` in `supervisor.toml`; `embedded_postgres.EmbeddedPostgres` for a machine without a server;
`database_worker.DatabaseWorker` for workers whose work is rows, `database_worker.ClaimingWorker` for those that claim
them. All packages of the room may import `client`, `messages`, `settings` and `database_worker`; `state` (where leases
are granted, revoked and shed), `opener`, `monitor`, `report`, `errors` and `control` belong to this package.

An actor of one's own imports from `actors.pool` the names that `__init__.pyi` lists, and nothing deeper.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
