"""What a pool is asked: a request for a connection, and the message that carries it."""

from __future__ import annotations

from types import CodeType

import attrs

from db.driver.call_site import site_at
from db.lease.lease import Lease, LeaseHolder
from db.lease.queue import Lane, QueuedRequest
from runtime import Deferred, Ref, Request


@attrs.define(eq=False)
class LeaseRequest:
    """One wish for a connection, from its first line to its lease. Lives in one process and on one loop.

    The asker and the pool share it, so that a connection that was granted at the very moment at which the asker gave up is
    found and given back.
    """

    label: str
    lane: Lane
    hold: float
    owner: LeaseHolder
    holder_ref: Ref
    since: float
    """Time on trio's clock at which the request was made; the acquire deadline counts from here."""
    deadline: float
    code: CodeType | None
    line: int
    lease: Lease | None = None
    waiter: QueuedRequest[LeaseRequest] | None = None
    deferred: Deferred[Lease] | None = None
    left_mailbox: bool = False
    """Whether the pool has taken it out of its mailbox."""

    @property
    def site(self) -> str:
        """The line that asks."""
        return site_at(self.code, self.line)


@attrs.frozen
class AcquireLease(Request[Lease]):
    """Answered with a lease as soon as a connection is free; fails with a LeaseError when there will be none in time."""

    request: LeaseRequest
