"""Who claims work, so that the claims of a dead predecessor are free at once and those of a live peer are not."""

import os
import socket

import attrs

from db.tx import Tx


@attrs.frozen
class Claimer:
    """A claimer: its name is stable across restarts, its incarnation grows with each.

    Two live claimers never share a name; whoever enlists under one last owns it.
    """

    name: str
    """``<instance>/<actor>``, such as ``main/activation``."""
    incarnation: int


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
        socket.gethostname(),
        os.getpid(),
    )
    return Claimer(name, incarnation)
