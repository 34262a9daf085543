"""A database from before purses: what was brought along is taken as its openings say, and what follows is derived."""

import pytest

from db.auditor.audit import audit
from db.schema.migrate import migrate
from tests.db.database import Database
from tests.db.schema.test_moving_over import fill


async def test_a_database_that_was_moved_over_is_clean_and_goes_on_clean(empty_database: Database) -> None:
    await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
    assert [str(finding) for finding in (await empty_database.run(audit)).findings] == []
    await empty_database.topup(2, 30_000, charge_id="after")
    await empty_database.buy_from_balance(2, key="after")
    await empty_database.buy(11, charge_id="bought after")
    assert [str(finding) for finding in (await empty_database.run(audit)).findings] == []


@pytest.mark.parametrize("column", ["paid", "credit", "earned", "debt"])
async def test_an_opening_that_is_altered_is_named(empty_database: Database, column: str) -> None:
    await fill(empty_database)
    async with empty_database.connect() as connection:
        await migrate(connection)
        await connection.execute("SET session_replication_role = replica")
        change = "debt - 1" if column == "debt" else f"{column} + 1"
        await connection.execute(f"UPDATE purse_openings SET {column} = {change} WHERE journal_id IS NOT NULL")
    named = {finding.rule for finding in (await empty_database.run(audit)).findings}
    assert "a purse holds what the facts lead to" in named
