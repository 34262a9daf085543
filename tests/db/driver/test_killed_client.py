"""A process that is killed amid a transaction leaves no lock behind for longer than a moment (see SessionLimits.client_check)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trio

from db.driver.session import open_session
from tests.run_queue import PATIENCE, at_most

ROOT = Path(__file__).parents[3]
DOOMED = """
import sys, trio
from db.driver.session import open_session

async def work(tx):
    await tx.execute("SELECT pg_advisory_xact_lock(1, 1)")
    await tx.execute("SELECT pg_sleep(600)")

async def main():
    async with open_session(sys.argv[1], "atlas/doomed") as session:
        await session.run("work", work, within=600)

trio.run(main)
"""
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'atlas/doomed' AND query LIKE '%pg_sleep%'"


async def test_the_locks_of_a_killed_process_are_free_within_about_a_second(empty_database_dsn: str) -> None:
    async with open_session(empty_database_dsn, "atlas/test") as session:
        doomed = subprocess.Popen([sys.executable, "-c", DOOMED, empty_database_dsn], cwd=ROOT)
        try:
            with trio.fail_after(PATIENCE):
                while not await session.statements.fetchval(ASLEEP):
                    assert doomed.poll() is None
        finally:
            doomed.kill()
            doomed.wait()
        with at_most(3.0):
            await session.statements.execute("SET lock_timeout = 0")
            await session.statements.execute("SELECT pg_advisory_xact_lock(1, 1)")
