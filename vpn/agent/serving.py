"""Making one life of Xray serve a user, or stop serving one: done, and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vpn.agent.life import Life
from vpn.errors import XrayCallFailed
from vpn.protocol import route_blind
from vpn.xray.codec import XrayUser


async def serve(life: Life, tag: str, user: XrayUser, displaced: Callable[[str], None]) -> int:
    """Serve this user; returns the connections cut because the key changed. `displaced` is told of a user that had the
    UUID before and lost it. Raises XrayCallFailed."""
    email, cut = user.email, 0
    life.unban(email)
    if email in life.blocked:
        await life.api.unblock(email)
        life.blocked.discard(email)
    await _release_uuid(life, tag, user, displaced)
    found = life.serving.get(email)
    if found is None and await life.api.add_user(tag, user):
        pass
    elif (found := await life.api.get_user(tag, email)) != user:
        # Xray has no upsert: a changed key is removed and added
        await life.api.remove_user(tag, email)
        await life.api.add_user(tag, user)
        cut = await life.cut(email)
    else:
        life.serves(user)
        return 0
    back = await life.api.get_user(tag, email)
    if back != user:
        life.stopped(email)
        raise XrayCallFailed(f"key {email!r} was added to Xray but reads back differently")
    life.serves(user)
    return cut


async def add_many(life: Life, tag: str, users: Iterable[XrayUser]) -> list[XrayUser]:
    """Add those users that this life of Xray does not know, without reading them back; returns those that were added.
    With the others there is more to do. Raises XrayCallFailed."""
    new = [
        user
        for user in users
        if user.email not in life.serving and user.email not in life.blocked and life.holder_of(user) is None
    ]
    added = [user for user, was_added in zip(new, await life.api.add_users(tag, new), strict=True) if was_added]
    for user in added:
        life.unban(user.email)
    return added


async def _release_uuid(life: Life, tag: str, user: XrayUser, displaced: Callable[[str], None]) -> None:
    """Take the UUID from whoever else still has it in Xray: with two users of one UUID, removing either locks out both.
    The other key does not want it any more, and gets what it does want when its own turn comes."""
    other = life.holder_of(user)
    if other is not None:
        displaced(other)
        await life.api.remove_user(tag, other)
        life.stopped(other)
        await life.cut(other)


async def stop_serving(life: Life, tag: str, email: str) -> int:
    """Refuse this user from now on and cut what is open; returns the connections cut. Raises XrayCallFailed."""
    # first of all, so that connections which show up from here on are cut on sight
    life.ban(email)
    await life.api.remove_user(tag, email)
    # Removed users keep what is open, and inside a shared (mux) connection may even open more: the rule ends that
    # at once. Only for customers who are connected, because every rule is looked at for every request.
    if life.connections.of(email):
        life.blocked.add(email)
        await life.api.block(email)
    cut = await life.cut(email)
    if await life.api.get_user(tag, email) is not None:
        raise XrayCallFailed(f"key {email!r} was removed from Xray but is still there")
    life.stopped(email)
    return cut


def with_the_same_uuid(users: Iterable[XrayUser]) -> list[str]:
    """The names of users that share a UUID with another, as far as Xray tells UUIDs apart."""
    by_uuid: dict[bytes, list[str]] = {}
    for user in users:
        if user.uuid is not None:
            by_uuid.setdefault(route_blind(user.uuid), []).append(user.email.lower())
    return [email for emails in by_uuid.values() if len(emails) > 1 for email in emails]
