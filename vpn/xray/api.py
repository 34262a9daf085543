"""Xray's run-time interface as calls with answers: users, block rules, counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from vpn.errors import XrayCallFailed
from vpn.xray import codec
from vpn.xray.codec import XrayUser
from vpn.xray.grpc import GrpcChannel

_HANDLER: Final = "/xray.app.proxyman.command.HandlerService/"
_STATS: Final = "/xray.app.stats.command.StatsService/"
_ROUTING: Final = "/xray.app.router.command.RoutingService/"

BLOCKED: Final = "blocked"
"Tag of the outbound that swallows everything; every configuration built here has it."


@attrs.frozen
class Traffic:
    """Bytes of one user since Xray started."""

    uplink: int = 0
    downlink: int = 0


@attrs.frozen
class XrayApi:
    """Calls to one life of Xray. All raise XrayCallFailed; Xray tells reasons by text only (code 2), so the text decides."""

    channel: GrpcChannel

    async def add_user(self, tag: str, user: XrayUser) -> bool:
        """Add a user. False if one of that name is there already, with this UUID or another: read it back."""
        try:
            await self.channel.call(_HANDLER + "AlterInbound", codec.add_user(tag, user))
        except XrayCallFailed as error:
            if "already exists" in str(error):
                return False
            raise
        return True

    async def add_users(self, tag: str, users: Sequence[XrayUser]) -> list[bool]:
        """Add many users at once, at most a few hundred. Which of them were added: the others are there already, or Xray
        refused them."""
        answers = await self.channel.call_many(_HANDLER + "AlterInbound", [codec.add_user(tag, user) for user in users])
        return [not isinstance(answer, XrayCallFailed) for answer in answers]

    async def remove_user(self, tag: str, email: str) -> bool:
        """Remove a user. False if there was none."""
        try:
            await self.channel.call(_HANDLER + "AlterInbound", codec.remove_user(tag, email))
        except XrayCallFailed as error:
            if "not found" in str(error) and "handler not found" not in str(error):
                return False
            raise
        return True

    async def get_user(self, tag: str, email: str) -> XrayUser | None:
        """One user as Xray has it, or None."""
        if not email:
            raise ValueError("a user needs a name")
        found = self._users(await self.channel.call(_HANDLER + "GetInboundUsers", codec.get_users(tag, email)))
        return next((user for user in found if user.email.lower() == email.lower() and user.uuid is not None), None)

    async def list_users(self, tag: str) -> list[XrayUser]:
        """All users of an inbound that can be listed, in no order. A user without a name never appears."""
        return self._users(await self.channel.call(_HANDLER + "GetInboundUsers", codec.get_users(tag)))

    async def count_users(self, tag: str) -> int:
        """How many users an inbound has."""
        answer = await self.channel.call(_HANDLER + "GetInboundUsersCount", codec.get_users(tag))
        try:
            return codec.count_of(answer)
        except ValueError as error:
            raise XrayCallFailed(f"GetInboundUsersCount: {error}") from error

    async def block(self, email: str) -> None:
        """Send everything of this user to nowhere, inside connections already open too. Repeating it is harmless."""
        try:
            await self.channel.call(_ROUTING + "AddRule", codec.add_block_rule(_rule(email), email, BLOCKED))
        except XrayCallFailed as error:
            if "duplicate ruleTag" not in str(error):
                raise

    async def unblock(self, email: str) -> None:
        """Undo `block`. Harmless if there was none."""
        await self.channel.call(_ROUTING + "RemoveRule", codec.remove_rule(_rule(email)))

    async def traffic(self, email: str = "") -> dict[str, Traffic]:
        """Counters by user; without a name, of all users that ever had traffic in this life of Xray."""
        answer = await self.channel.call(
            _STATS + "QueryStats", codec.query_stats(f"user>>>{email}>>>" if email else "user>>>")
        )
        try:
            counters = codec.stats_of(answer)
        except ValueError as error:
            raise XrayCallFailed(f"QueryStats: {error}") from error
        found: dict[str, Traffic] = {}
        for name, value in counters.items():
            parts = name.split(">>>")
            if len(parts) == 4 and parts[0] == "user" and parts[2] == "traffic" and parts[3] in ("uplink", "downlink"):
                found[parts[1]] = attrs.evolve(found.get(parts[1], Traffic()), **{parts[3]: value})
        return found

    def _users(self, answer: bytes) -> list[XrayUser]:
        try:
            return codec.users_of(answer)
        except ValueError as error:
            raise XrayCallFailed(f"GetInboundUsers: {error}") from error


def _rule(email: str) -> str:
    return f"removed:{email}"
