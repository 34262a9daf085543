"""A look of the auditor from within the service: read in one snapshot, derived in a thread, kept as audited if it is clean."""

from __future__ import annotations

from typing import Final

import trio

from actors.conditions import Condition
from actors.pool.client import Pool
from db.auditor.audit import Audit, Reading, judge, keep, read_changes
from db.errors import DatabaseBusy, LeaseError, LeaseExpired
from db.tx import Tx
from db.work.leader_leases import Epoch, check_epoch
from runtime.metrics import gauge

AUDITOR: Final = "auditor"
"""What its condition, and the case of it, are about."""

FINDINGS = gauge("atlas_audit_findings", "What the auditor found at its last look; it must be 0.")
AUDITED_ROWS = gauge("atlas_audited_rows", "Rows of facts and of what follows from them at the auditor's last look.")


async def look(pool: Pool, epoch: Epoch, *, seconds: float, most_rows: int) -> Condition:
    """Audit what has changed, and say what is wrong; the checkpoint is written only by who holds `epoch`.

    Reading may take so many `seconds`. More than `most_rows` rows are compared with what was audited before, and not derived:
    that is for `atlas verify`, in a process of its own. Raises `LeaseError` when the database cannot be worked on, and
    `LostEpoch`.
    """

    async def read(tx: Tx) -> Reading:
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return await read_changes(tx, most_rows=most_rows)

    async def write(tx: Tx) -> None:
        await check_epoch(tx, epoch)
        await keep(tx, reading)

    try:
        reading = await pool.run("housekeeping.audit", read, hold=seconds, within=seconds)
        # No connection is held meanwhile, and the loop goes on; who cancels this does not wait for the end.
        audited: Audit = await trio.to_thread.run_sync(judge, reading, abandon_on_cancel=True)
    except LeaseExpired:
        return _unseen(f"not read within {seconds:g} s")
    except DatabaseBusy as error:
        return _unseen(str(error))
    except LeaseError:
        raise
    except Exception as error:  # noqa: BLE001  whatever keeps us from seeing is trouble to be told
        return _unseen(f"{type(error).__name__}: {error}")
    FINDINGS.set(len(audited.findings))
    if reading.parts:
        AUDITED_ROWS.set(reading.rows)
    if audited.findings:
        return Condition(
            AUDITOR, f"{len(audited.findings)} findings, such as {audited.findings[0]}; `atlas verify` lists them"
        )
    if audited.is_derived:
        await pool.run("housekeeping.audited", write)
    return Condition(AUDITOR, "")


def _unseen(why: str) -> Condition:
    return Condition(AUDITOR, f"it could not be done ({why}); `atlas verify` takes the time that it needs")
