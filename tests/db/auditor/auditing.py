"""Altering a database with triggers off, asking who names it, and undoing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import asyncpg
import attrs

from db.auditor.audit import MODULES
from db.auditor.books import Books, read_books
from db.auditor.checkpoint import check_parts, keep_parts
from db.auditor.derivation import Derivation
from db.auditor.findings import RULES, apply_rules
from tests.db.auditor.corruptions import Corruption
from tests.db.database import Connection, Database

VIEWS = """
SELECT c.relname AS name FROM pg_class c
WHERE c.relkind = 'v' AND c.relname LIKE 'money\\_%' AND coalesce(obj_description(c.oid, 'pg_class'), '') NOT LIKE 'at rest%'
"""
SENTENCES = {rule.sentence: name for name, rule in RULES.items()}
assert MODULES


@attrs.define
class Named:
    """How many corruptions were planted, and which of them nobody named."""

    refused: int = 0
    """By a constraint that holds with triggers off too."""
    without_effect: int = 0
    by_rules: int = 0
    by_checkpoint: int = 0
    """By the digest of what was audited before, and by no rule."""
    by_views: int = 0
    """And by nothing of the auditor."""
    unnamed: list[str] = attrs.field(factory=list)


@attrs.define
class Auditing:
    """One connection to a database that has been audited and found clean."""

    connection: Connection
    clean: Books

    async def broken_rules(self, statements: str, tables: Iterable[str] | None = None) -> set[str]:
        """The rules that name these statements; `tables` are all that they alter (None: any). Nothing stays."""
        async with self.altered(statements):
            altered = set(self.clean.tables if tables is None else tables)
            known = {name: rows for name, rows in self.clean.tables.items() if name not in altered}
            derived = Derivation(await read_books(self.connection, known))
            return {SENTENCES[found.rule] for found in apply_rules(derived)}

    @asynccontextmanager
    async def altered(self, statements: str) -> AsyncIterator[None]:
        """Alter rows with triggers off, and take it back. Raises what the server refuses."""
        await self.connection.execute("BEGIN")
        try:
            await self.connection.execute("SET LOCAL session_replication_role = replica")
            await self.connection.execute(statements)
            yield
        finally:
            await self.connection.execute("ROLLBACK")

    async def plant(self, corruption: Corruption, named: Named) -> None:
        """Plant one corruption, and count who names it."""
        table = corruption.table
        try:
            async with self.altered("SELECT 1"):
                if (await self.connection.execute(corruption.statement)).endswith(" 0"):
                    named.without_effect += 1
                    return
                known = {name: rows for name, rows in self.clean.tables.items() if name != table}
                derived = Derivation(await read_books(self.connection, known))
                if next(apply_rules(derived), None) is not None:
                    named.by_rules += 1
                elif (await check_parts(self.connection, [table]))[0]:
                    named.by_checkpoint += 1
                elif await self._broken_views():
                    named.by_views += 1
                else:
                    named.unnamed.append(str(corruption))
        except asyncpg.IntegrityConstraintViolationError:
            named.refused += 1

    async def _broken_views(self) -> bool:
        for view in await self.connection.fetch(VIEWS):
            if await self.connection.fetchval(f"SELECT EXISTS (SELECT FROM {view['name']})"):
                return True
        return False


@asynccontextmanager
async def auditing(database: Database) -> AsyncIterator[Auditing]:
    """A database that was audited, found clean, and kept as such."""
    async with database.connect() as connection:
        clean = await read_books(connection)
        found = [str(finding) for finding in apply_rules(Derivation(clean))]
        assert found == [], "\n".join(found)
        await keep_parts(connection)
        yield Auditing(connection, clean)
