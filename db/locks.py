"""Namespaces of advisory locks: always transaction-level, always the two-integer form."""

from enum import IntEnum

from db.tx import Tx

_INT4_MAX = 2**31 - 1


class LockSpace(IntEnum):
    """The first integer of an advisory lock says what the second one counts."""

    MIGRATION = 0x4154_4C00
    """One lock: bringing the schema up to date."""
    KEY = 0x4154_4C01
    """A row of ``vpn_keys``, by id."""
    EPOCH = 0x4154_4C02
    """A row of ``epochs`` that may not exist yet, by hash of its name."""


async def lock_for_transaction(tx: Tx, space: LockSpace, number: int) -> None:
    """Wait for the lock (bounded by the session's ``lock_timeout``) and keep it until the transaction ends.

    Numbers beyond 31 bits share locks with smaller ones: that costs a wait now and then, never an exclusion.
    """
    await tx.execute("SELECT pg_advisory_xact_lock($1, $2)", int(space), number & _INT4_MAX)
