"""One Xray process and everything that begins and ends with it; making it serve a user or stop serving one.

Every change is read back from Xray before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import attrs
import trio

from vpn.agent.config import metrics
from vpn.errors import XrayCallFailed
from vpn.protocol import route_blind
from vpn.xray.access_log import Connections, Source
from vpn.xray.api import XrayApi, XrayUser
from vpn.xray.cutter import CutMethod, Cutter

T = TypeVar("T")


@attrs.define(eq=False)
class XrayInstance:
    """One Xray process, what it serves and who is connected to it.

    `serving` are the users that were confirmed by reading them back, by name; `has_served` is whether there ever were
    any. `blocked` are the users with a block rule. `banned` are those whose new connections are cut as soon as they
    show up, with the time since when, on the loop's clock.
    """

    boot_id: str
    version: str
    pid: int
    started_at: float
    api: XrayApi
    cutter: Cutter
    connections: Connections
    serving: dict[str, XrayUser] = attrs.field(factory=dict)
    _uuid_owners: dict[bytes, str] = attrs.field(factory=dict)
    has_served: bool = False
    blocked: set[str] = attrs.field(factory=set)
    banned: dict[str, float] = attrs.field(factory=dict)

    def mark_serving(self, user: XrayUser) -> None:
        """Xray was seen to have this user."""
        assert user.uuid is not None
        self.mark_not_serving(user.email)
        self.serving[user.email] = user
        self.has_served = True
        self._uuid_owners[route_blind(user.uuid)] = user.email

    def mark_not_serving(self, email: str) -> None:
        """Xray does not have this user, or not for certain."""
        user = self.serving.pop(email, None)
        if user is not None and user.uuid is not None:
            self._uuid_owners.pop(route_blind(user.uuid), None)

    def owner_of_uuid(self, user: XrayUser) -> str | None:
        """The name of another user that has this user's UUID in Xray, or None."""
        assert user.uuid is not None
        holder = self._uuid_owners.get(route_blind(user.uuid))
        return None if holder == user.email else holder

    def ban(self, email: str) -> None:
        """Cut this customer's connections as soon as they show up, until `unban`."""
        self.banned[email] = trio.current_time()

    def unban(self, email: str) -> None:
        """End a ban. Harmless if there was none."""
        self.banned.pop(email, None)

    def is_banned(self, email: str) -> bool:
        """Whether this customer's connections are cut as soon as they show up."""
        return email in self.banned

    def bans_before(self, moment: float) -> list[str]:
        """The customers who were banned before `moment` on the loop's clock."""
        return [email for email, since in self.banned.items() if since < moment]

    async def cut(self, email: str) -> int:
        """Cut the customer's connections that are known so far; returns how many were open. Raises XrayCallFailed."""
        return await self.cut_these(self.connections.of(email))

    async def cut_these(self, sources: frozenset[Source]) -> int:
        """Cut these connections; returns how many were open, 0 where this host forbids cutting. Raises XrayCallFailed."""
        if not sources or self.cutter.method is CutMethod.NONE:
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


async def serve(instance: XrayInstance, tag: str, user: XrayUser, displaced: Callable[[str], None]) -> int:
    """Make Xray serve this user on the inbound `tag`, and read it back.

    Returns the number of connections cut because the key changed. `displaced` is called with the name of a user that
    had the UUID before and lost it. Raises XrayCallFailed.
    """
    email, cut = user.email, 0
    instance.unban(email)
    if email in instance.blocked:
        await instance.api.unblock(email)
        instance.blocked.discard(email)
    await _release_uuid(instance, tag, user, displaced)
    found = instance.serving.get(email)
    if found is None and await instance.api.add_user(tag, user):
        pass
    elif (found := await instance.api.get_user(tag, email)) != user:
        # Xray has no upsert: a changed key is removed and added
        await instance.api.remove_user(tag, email)
        await instance.api.add_user(tag, user)
        cut = await instance.cut(email)
    else:
        instance.mark_serving(user)
        return 0
    back = await instance.api.get_user(tag, email)
    if back != user:
        instance.mark_not_serving(email)
        raise XrayCallFailed(f"key {email!r} was added to Xray but reads back differently")
    instance.mark_serving(user)
    return cut


async def add_many(instance: XrayInstance, tag: str, users: Iterable[XrayUser]) -> list[XrayUser]:
    """Add those users that this instance is not known to have, without reading them back; returns those that were
    added. The others need `serve`. Raises XrayCallFailed.
    """
    new = [
        user
        for user in users
        if user.email not in instance.serving
        and user.email not in instance.blocked
        and instance.owner_of_uuid(user) is None
    ]
    added = [user for user, was_added in zip(new, await instance.api.add_users(tag, new), strict=True) if was_added]
    for user in added:
        instance.unban(user.email)
    return added


async def _release_uuid(instance: XrayInstance, tag: str, user: XrayUser, displaced: Callable[[str], None]) -> None:
    """Take the UUID from the user that still has it in Xray: with two users of one UUID, removing either locks out
    both. The other key does not want it any more, and gets what it does want when its own turn comes.
    """
    other = instance.owner_of_uuid(user)
    if other is not None:
        displaced(other)
        await instance.api.remove_user(tag, other)
        instance.mark_not_serving(other)
        await instance.cut(other)


async def stop_serving(instance: XrayInstance, tag: str, email: str) -> int:
    """Refuse this user on the inbound `tag` from now on and cut its open connections; returns how many were cut. Read
    back before it returns. Raises XrayCallFailed.
    """
    # first of all, so that connections which show up from here on are cut on sight
    instance.ban(email)
    await instance.api.remove_user(tag, email)
    # Removed users keep what is open, and inside a shared (mux) connection may even open more: the rule ends that
    # at once. Only for customers who are connected, because every rule is looked at for every request.
    if instance.connections.of(email):
        instance.blocked.add(email)
        await instance.api.block(email)
    cut = await instance.cut(email)
    if await instance.api.get_user(tag, email) is not None:
        raise XrayCallFailed(f"key {email!r} was removed from Xray but is still there")
    instance.mark_not_serving(email)
    return cut


def with_the_same_uuid(users: Iterable[XrayUser]) -> list[str]:
    """The names of users that share a UUID with another, as far as Xray tells UUIDs apart."""
    by_uuid: dict[bytes, list[str]] = {}
    for user in users:
        if user.uuid is not None:
            by_uuid.setdefault(route_blind(user.uuid), []).append(user.email.lower())
    return [email for emails in by_uuid.values() if len(emails) > 1 for email in emails]
