"""What every pool is made to do: the same statements on the same tables.

Importing this imports no asyncio, asyncpg or trio: each side runs it in a process of its own.
"""

from __future__ import annotations

import enum

CONNECTIONS = 10

TABLES = """
    CREATE UNLOGGED TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE UNLOGGED TABLE IF NOT EXISTS postings (account int NOT NULL, amount bigint NOT NULL);
    TRUNCATE accounts, postings;
    INSERT INTO accounts SELECT n, 0 FROM generate_series(1, 100) n;
"""
SELECT = "SELECT 1"
UPDATE = "UPDATE accounts SET balance = balance + $2 WHERE id = $1"
INSERT = "INSERT INTO postings (account, amount) VALUES ($1, $2)"
READ = "SELECT balance FROM accounts WHERE id = $1"
SINGLE = """
    WITH changed AS (UPDATE accounts SET balance = balance + $2 WHERE id = $1 RETURNING balance),
         noted AS (INSERT INTO postings (account, amount) VALUES ($1, $2))
    SELECT balance FROM changed
"""


class Job(enum.Enum):
    """One unit of work."""

    LEASE = "take a connection and give it back"
    SELECT = "take a connection, SELECT 1, give it back"
    KEY = "take a connection, select a row by its primary key, give it back"
    ONE = "a transaction of one statement, the row by its primary key"
    TRANSACTION = "a transaction of three statements"
    SINGLE = "what the transaction does, as one statement"
