"""The clock of a demo or test database can be moved, so that a year of expiry and renewal fits in an afternoon."""

from datetime import timedelta

from db.errors import ClockRefused
from db.tx import Tx


async def set_clock_offset(tx: Tx, offset: timedelta) -> None:
    """Move the database's clock to `offset` from the real one.

    Raises `ClockRefused` in a database created for production; the server refuses it there as well.
    """
    purpose = await tx.fetchval("SELECT purpose FROM database_identity")
    if purpose == "production":
        raise ClockRefused(
            "the clock of a production database is not moved; create a database with database.purpose demo or test"
        )
    await tx.execute("UPDATE database_identity SET clock_offset = $1", offset)
