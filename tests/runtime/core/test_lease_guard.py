from __future__ import annotations

import attrs
import pytest
import trio

from runtime.core.lease_guard import current_lease, refuse_if_leased
from runtime.errors import LeaseHeldAcrossCall


@attrs.define
class Lease:
    is_open: bool = True
    label: str = "renewals"
    site: str = "db/renew.py:7"

    def note_refused_call(self, error: Exception) -> None:
        """Nobody looks."""


def test_without_a_lease_everything_is_allowed() -> None:
    refuse_if_leased("GET /")


async def test_with_an_open_lease_the_error_names_both_sites() -> None:
    current_lease.set(Lease())
    with pytest.raises(LeaseHeldAcrossCall, match=r"GET / at .*test_lease_guard.py:\d+ .*'renewals' taken at db/renew"):
        refuse_if_leased("GET /")
    with pytest.raises(LeaseHeldAcrossCall, match=r"GET / at client.py:3 was refused"):
        refuse_if_leased("GET /", "client.py:3")


async def test_what_counts_is_whether_the_lease_is_still_open() -> None:
    """Children inherit their parent's context, and with it a lease that was given back long ago."""
    lease = Lease()
    current_lease.set(lease)
    closed, refused, allowed = trio.Event(), trio.Event(), trio.Event()

    async def child() -> None:
        with pytest.raises(LeaseHeldAcrossCall):
            refuse_if_leased("GET /")
        refused.set()
        await closed.wait()
        refuse_if_leased("GET /")
        allowed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await refused.wait()
        lease.is_open = False
        closed.set()
    assert allowed.is_set()
