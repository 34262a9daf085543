"""An address that can be asked to finish what it has accepted before it stops."""

from __future__ import annotations

from collections.abc import Callable

import trio

from runtime.child import StopCause, StopReason
from runtime.core.actor import Actor
from runtime.core.address import Address

DRAIN_SHARE: float = 0.5
"""How much of the time to stop may be used for what waits in the mailbox; the rest is for the current message and
`on_stop`."""


class DrainingAddress(Address):
    """An Address whose orderly final stop drains first, once `drains` is set.

    Draining: new user messages are refused, those that were accepted are handled. When half of the time to stop is used up,
    the rest of them is given up and the ordinary stop follows. A stop for a restart never drains: the mailbox survives it.
    """

    drains: bool = False
    """Whether the next final stop drains."""
    start_soon: Callable[..., None] | None = None
    """Starts the task that limits a drain; set by the system while it runs."""

    @property
    def actor(self) -> Actor | None:
        """The instance that runs, or ran last; None before the first start and after the end. For the runtime alone."""
        return self._actor

    def on_forgotten(self) -> None:
        """Keep the name: it belongs to the configuration, and an operator may restart who has ended."""

    def request_stop(self, reason: StopReason) -> None:
        """See Child.request_stop."""
        if not self.drains or self.start_soon is None or reason.cause is StopCause.RESTART or self.mailbox.is_empty:
            super().request_stop(reason)
            return
        if not self.is_draining:
            self.request_drain()
        now = trio.current_time()
        self.start_soon(self._stop_at, now + max(0.0, reason.deadline - now) * DRAIN_SHARE, reason, self.incarnation)

    async def _stop_at(self, deadline: float, reason: StopReason, incarnation: int) -> None:
        await trio.sleep_until(deadline)
        if self.incarnation == incarnation and self.is_up:
            super().request_stop(reason)
