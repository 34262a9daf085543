"""What a pool receives."""

from __future__ import annotations

from types import CodeType

import attrs

from db.call_site import site_at
from db.lease import Lease, Owner
from db.lease_queue import Lane, Waiter
from runtime.deferred import Deferred
from runtime.message import Request
from runtime.ref import Ref


@attrs.define(eq=False)
class LeaseRequest:
    """One wish for a connection, from its first line to its lease. Lives in one process and on one loop.

    The asker and the pool share it, so that a connection that was granted at the very moment at which the asker gave up is
    found and given back.
    """

    label: str
    lane: Lane
    hold: float
    owner: Owner
    owner_ref: Ref
    since: float
    """Time on trio's clock at which the request was made; the acquire deadline counts from here."""
    deadline: float
    code: CodeType | None
    line: int
    lease: Lease | None = None
    waiter: Waiter[LeaseRequest] | None = None
    deferred: Deferred[Lease] | None = None
    arrived: bool = False
    """Whether the pool has taken it out of its mailbox."""

    @property
    def site(self) -> str:
        """The line that asks."""
        return site_at(self.code, self.line)


@attrs.frozen
class AcquireLease(Request[Lease]):
    """Answered with a lease as soon as a connection is free; fails with a LeaseError when there will be none in time."""

    request: LeaseRequest
