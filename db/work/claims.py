"""Claims: who works on a row, until when on database time, and the SQL that every claimed table shares.

Such a table has four columns: `claimed_by` and `claimed_incarnation` (a `Claimer`), `claim_until`, and `claim_epoch`,
which grows with each claim, so that what a former holder writes is fenced by it. The functions that give SQL take
nothing but literals of ours: `of` is an alias with its dot (`"k."`), `claimer` and `incarnation` are the statement's
parameters.
"""

import os
import socket
from typing import Final

import attrs

from db.tx import Tx


@attrs.frozen
class Claimer:
    """A claimer: its name is stable across restarts, its incarnation grows with each.

    Two live claimers never share a name; the last to enlist under a name owns it.
    """

    name: str
    """`<instance>/<actor>`, such as `main/activation`."""
    incarnation: int


def host_and_pid() -> tuple[str, int]:
    """Where this process runs, as a claimer's or holder's row tells the operator."""
    return socket.gethostname(), os.getpid()


async def enlist_claimer(tx: Tx, name: str) -> Claimer:
    """Start a new incarnation of this owner: claims of all earlier ones may be taken over from the next claim on.

    Call it once when an actor starts. The number comes from the database, so it grows across process restarts too.
    """
    incarnation = await tx.fetchval(
        """
        INSERT INTO owners (name, incarnation, host, pid) VALUES ($1, 1, $2, $3)
        ON CONFLICT (name) DO UPDATE
            SET incarnation = owners.incarnation + 1, host = excluded.host, pid = excluded.pid, enlisted_at = atlas_now()
        RETURNING incarnation
        """,
        name,
        *host_and_pid(),
    )
    return Claimer(name, incarnation)


NOW: Final = "(SELECT atlas_now())"


def unclaimed(now: str = NOW, *, of: str = "") -> str:
    """WHERE, without parentheses: no claim on the row holds at `now` (SQL, the database's time by default)."""
    return f"{of}claim_until IS NULL OR {of}claim_until <= {now}"


def claimable(now: str = NOW, *, of: str = "", claimer: str = "$1", incarnation: str = "$2") -> str:
    """WHERE: no worker is at work on the row. It is unclaimed, or its claim is one of the claimer's earlier incarnations."""
    return f"({unclaimed(now, of=of)} OR ({of}claimed_by = {claimer} AND {of}claimed_incarnation < {incarnation}))"


def claimed(until: str, *, of: str = "", claimer: str = "$1", incarnation: str = "$2") -> str:
    """SET: the claimer works on the row until then (SQL); the epoch is raised, so that a former holder is fenced."""
    return (
        f"claimed_by = {claimer}, claimed_incarnation = {incarnation}, "
        f"claim_epoch = {of}claim_epoch + 1, claim_until = {until}"
    )


def released(*, of: str = "", unless: str = "") -> str:
    """SET: end the claim; where `unless` (SQL) is true it stays."""
    columns = ("claimed_by", "claimed_incarnation", "claim_until")
    return ", ".join(f"{c} = CASE WHEN {unless} THEN {of}{c} END" if unless else f"{c} = NULL" for c in columns)


def revoked(*, of: str = "") -> str:
    """SET: end the claim and raise the epoch, so that its holder, if there is one, is fenced."""
    return f"claim_epoch = {of}claim_epoch + 1, {released()}"
