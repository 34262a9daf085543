"""The database room: everything that is SQL, and the connection that it runs on.

Promise: a business function takes a `db.tx.Tx`, awaits nothing else, and either all of it happens or nothing. Packages,
lowest
first: `driver` (one connection), `lease` (who holds it), `schema` (migrations), `embedded` (a PostgreSQL of our own),
`work`
(claims, outbox, audit, epochs), `access` (what a customer is entitled to), `billing` (money), `keys` (what nodes have).
Knows
`runtime`, never `vpn` or `actors`; every package imports those before it in this list alone.
"""
