"""One asyncpg connection driven from a trio task, and one transaction on it.

Promise: a function that is given a transaction can wait for nothing but that transaction; a cancellation returns at
once; a commit whose outcome is unknown is reported as such. Entry points: `session.open_session` (one connection for
one command), `connection.open_connection`, `transaction.transact`, `listener.Listener`, `classify.classify`. asyncpg
and its errors are known in this package alone. For `db.lease`, the pool's actor and operators' commands.
"""
