"""Bulk rows for benchmarks: scripts of plain statements, run within the caller's transaction."""

from __future__ import annotations

from db.tx import Tx


async def execute_script(tx: Tx, script: str) -> None:
    """Run statements that are separated by a semicolon at the end of a line. Raises as the first that fails."""
    for statement in script.split(";\n"):
        if statement.strip():
            await tx.execute(statement)
