"""Everything that begins and ends with one Xray process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from vpn.agent import metrics
from vpn.connections import Connections
from vpn.cut import Cutter, Way
from vpn.errors import XrayCallFailed
from vpn.protocol import route_blind
from vpn.xray.api import XrayApi
from vpn.xray.codec import XrayUser
from vpn.xray.lines import Source

T = TypeVar("T")


@attrs.define(eq=False)
class Life:
    """One Xray process, what it serves and who is connected to it.

    `serving` are the users confirmed in it, `has_served` whether there ever were any, `blocked` those with a block rule,
    `banned` those whose every new connection is to be cut on sight.
    """

    boot_id: str
    version: str
    pid: int
    started_at: float
    api: XrayApi
    cutter: Cutter
    connections: Connections
    serving: dict[str, XrayUser] = attrs.field(factory=dict)
    _holders: dict[bytes, str] = attrs.field(factory=dict)
    has_served: bool = False
    blocked: set[str] = attrs.field(factory=set)
    banned: dict[str, float] = attrs.field(factory=dict)

    def serves(self, user: XrayUser) -> None:
        """Xray was seen to have this user."""
        assert user.uuid is not None
        self.stopped(user.email)
        self.serving[user.email] = user
        self.has_served = True
        self._holders[route_blind(user.uuid)] = user.email

    def stopped(self, email: str) -> None:
        """Xray does not have this user, or not for certain."""
        user = self.serving.pop(email, None)
        if user is not None and user.uuid is not None:
            self._holders.pop(route_blind(user.uuid), None)

    def holder_of(self, user: XrayUser) -> str | None:
        """Another user that has this UUID in Xray."""
        assert user.uuid is not None
        holder = self._holders.get(route_blind(user.uuid))
        return None if holder == user.email else holder

    def ban(self, email: str) -> None:
        """From now on cut this customer's connections on sight."""
        self.banned[email] = trio.current_time()

    def unban(self, email: str) -> None:
        """Stop that."""
        self.banned.pop(email, None)

    def is_banned(self, email: str) -> bool:
        """Whether the customer is to stay out."""
        return email in self.banned

    def bans_before(self, moment: float) -> list[str]:
        """Customers banned before that moment of the loop's clock."""
        return [email for email, since in self.banned.items() if since < moment]

    async def cut(self, email: str) -> int:
        """Cut the customer's connections known so far; how many were open. Raises XrayCallFailed."""
        return await self.cut_these(self.connections.of(email))

    async def cut_these(self, sources: frozenset[Source]) -> int:
        """Cut these connections; how many were open. Raises XrayCallFailed."""
        if not sources or self.cutter.way is Way.NONE:
            return 0
        shut = await self._in_thread(lambda: self.cutter.cut(sources))
        self.connections.forget(sources)
        metrics.CUT.inc(len(shut))
        return len(shut)

    async def flows(self) -> dict[Source, int]:
        """Bytes through each open connection so far. Raises XrayCallFailed."""
        return {flow.source: flow.moved for flow in await self._in_thread(self.cutter.flows)}

    async def forget_closed(self) -> None:
        """Forget connections that are not open any more. Raises XrayCallFailed."""
        known = self.connections.all()
        live = await self._in_thread(self.cutter.live)
        # only those known before the look: newer ones may be missing in it
        self.connections.forget(known - live)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(function)
        except OSError as error:
            raise XrayCallFailed(f"Xray's connections cannot be reached: {error.strerror or error}") from error
