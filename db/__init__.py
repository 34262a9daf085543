"""Everything that is SQL, and the connection that it runs on.

Promise: a business function is `async def f(tx: Tx, …)` (`db.tx.Tx`), awaits nothing but `tx`, and either all of it
happens or nothing. Packages, lowest first: `driver` (one connection and one transaction on it), `lease` (who holds the
connection), `schema` (migrations), `embedded` (a PostgreSQL of our own), `work` (claims, outbox, audit, epochs),
`access` (what a customer is entitled to), `billing` (money), `keys` (what the nodes have). The room knows `runtime`,
never `vpn` or `actors`; a package imports only those before it in this list.

An actor of one's own imports from `db` the names that `__init__.pyi` lists, and nothing deeper.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
