"""Making Xray's users equal to the wanted keys: one key at a time for a request, many together after a start or a sync."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import attrs
import trio

from runtime import get_logger
from vpn.agent.config import metrics
from vpn.agent.state.desired import DesiredSet, Entry
from vpn.agent.xray.instance import XrayInstance, add_many, serve, stop_serving, with_the_same_uuid
from vpn.agent.xray.key_locks import KeyLocks
from vpn.agent.xray.supervisor import XraySupervisor
from vpn.errors import XrayCallFailed, XrayDown
from vpn.protocol import KeySpec
from vpn.xray.api import XrayUser

log = get_logger(__name__)

AT_ONCE: Final = 16
"Keys that are changed in Xray at the same time."

_RETRY_SECONDS: Final = 1.0
_REMOVALS_WATCHED: Final = 1000
_READ_BACK_AT_ONCE_FOR: Final = 200
"From this many keys on, Xray's users are listed once instead of asked for one by one."
_ADDED_TOGETHER: Final = 100
_RESTART_FOR: Final = 500
"From this many new keys on, an Xray that never served anybody is started anew: 0.35 s instead of a minute for 50 000."


@attrs.define(eq=False)
class Convergence:
    """Makes Xray agree with the wanted set, and remembers about which keys it does not agree yet.

    A key is pending from its change on until Xray was changed and read back. `run` retries what is pending every
    second, except what a request works on just now: that request makes the change itself, because it reports what the
    change did.

    `expired` are the ids of wanted keys whose time is over: they are treated like removed ones. `tag` names Xray's
    inbound. Every change of one key in Xray is made under its lock in `locks`. `removals` yields each customer who was
    just shut out, with the Xray instance, for the check that the customer stays out; if 1000 wait, later ones are
    dropped.
    """

    desired: DesiredSet
    expired: AbstractSet[str]
    xray: XraySupervisor
    tag: str
    locks: KeyLocks = attrs.field(init=False, factory=KeyLocks)
    removals: trio.MemoryReceiveChannel[tuple[XrayInstance, str]] = attrs.field(init=False)
    _removals: trio.MemorySendChannel[tuple[XrayInstance, str]] = attrs.field(init=False)
    _pending: dict[str, None] = attrs.field(init=False, factory=dict)
    _owned_by_requests: Counter[str] = attrs.field(init=False, factory=Counter)
    _bulk_changes: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._removals, self.removals = trio.open_memory_channel(_REMOVALS_WATCHED)

    @property
    def pending(self) -> AbstractSet[str]:
        """The ids of keys, wanted or not, about which Xray has not agreed yet."""
        return self._pending.keys()

    def mark_pending(self, key_id: str) -> None:
        """The key changed: Xray does not agree until it was read back."""
        self._pending[key_id] = None

    def users(self) -> list[XrayUser]:
        """The users that Xray should have now."""
        return [_user(spec) for spec in self.desired.specs() if spec.key_id not in self.expired]

    @contextlib.contextmanager
    def owned_by_request(self, key_ids: Sequence[str]) -> Iterator[None]:
        """For the length of the block, `run` does not retry these keys: a request converges them itself."""
        self._owned_by_requests.update(key_ids)
        try:
            yield
        finally:
            self._owned_by_requests.subtract(key_ids)
            self._owned_by_requests = +self._owned_by_requests

    @contextlib.contextmanager
    def bulk_change(self) -> Iterator[None]:
        """For the length of the block, `run` retries nothing: many keys are being changed together."""
        self._bulk_changes += 1
        try:
            yield
        finally:
            self._bulk_changes -= 1

    async def run(self) -> None:
        """Retry what is pending, every second while Xray is up; until cancelled."""
        while True:
            await trio.sleep(_RETRY_SECONDS)
            # a key that is locked is being worked on, too
            if self.xray.current is not None and not self._bulk_changes:
                await self.converge_all(
                    [
                        key_id
                        for key_id in self._pending
                        if key_id not in self.locks and key_id not in self._owned_by_requests
                    ]
                )

    async def converge(self, key_id: str) -> int:
        """Make Xray agree about one key and read it back; returns the number of connections that were cut.

        If Xray ends meanwhile, the change is made once more in the one that follows. Raises XrayDown or XrayCallFailed; the
        key stays pending then.
        """
        async with self.locks.of(key_id):
            instance = await self.xray.instance()
            try:
                return await self._converge_in(instance, key_id)
            except (XrayDown, XrayCallFailed):
                if not await self.xray.has_ended(instance):
                    raise
            return await self._converge_in(await self.xray.instance(), key_id)

    async def converge_all(self, key_ids: Sequence[str]) -> None:
        """Make Xray agree about these keys, by the cheapest way for so many. Failures are logged; those keys stay pending."""
        with self.bulk_change():
            instance = self.xray.current
            if len(key_ids) >= _RESTART_FOR and instance is not None and not instance.has_served:
                if not await self._restart_with(key_ids):
                    return
            elif len(key_ids) >= _READ_BACK_AT_ONCE_FOR and instance is not None:
                await self._add_many(instance, key_ids)
            limit = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for key_id in [key_id for key_id in key_ids if key_id in self._pending]:
                    await limit.acquire_on_behalf_of(key_id)
                    nursery.start_soon(self._converge_limited, key_id, limit)

    async def verify(self) -> int:
        """Compare Xray's users with the wanted keys and correct what differs; returns how many differed.

        Keys that are pending or change meanwhile are left alone. Raises XrayDown or XrayCallFailed.
        """
        instance = await self.xray.instance()
        busy, since = set(self._pending), self.desired.sequence
        listed = {user.email.lower(): user for user in await instance.api.list_users(self.tag)}
        wanted = {user.email: user for user in self.users()}
        differing = [
            email
            for email in listed.keys() | wanted.keys()
            if listed.get(email) != wanted.get(email)
            and email not in busy
            and not self.desired.has_changed(email, since)
        ]
        # Removing one of two users with the same UUID locks out the other, who stays listed: both have to go first.
        shared = with_the_same_uuid(listed.values())
        differing = [*dict.fromkeys((*differing, *shared))]
        for email in differing:
            instance.mark_not_serving(email)  # what was confirmed once is not true any more
            self.mark_pending(email)
        for email in shared:
            await instance.api.remove_user(self.tag, email)
        if differing:
            metrics.REPAIRED.inc(len(differing))
            log.warning("Xray's users differ from the wanted keys and are put right", count=len(differing))
            await self.converge_all(differing)
        return len(differing)

    async def _restart_with(self, key_ids: Sequence[str]) -> bool:
        """Start Xray anew, with all wanted keys in its configuration. False if it did not come up in time."""
        self.xray.restart()
        try:
            fresh = await self.xray.instance(within=30.0)
        except XrayDown as error:
            log.warning("many keys could not be applied yet and are tried again", count=len(key_ids), reason=str(error))
            return False
        for key_id in key_ids:
            if key_id in fresh.serving or self.desired.wanted(key_id) is None:
                self._pending.pop(key_id, None)
        return True

    async def _add_many(self, instance: XrayInstance, key_ids: Sequence[str]) -> None:
        """Add those that Xray does not have and read all of them back in one go: half the calls. What cannot be confirmed
        so stays pending."""
        added: list[tuple[Entry, XrayUser]] = []
        try:
            for start in range(0, len(key_ids), _ADDED_TOGETHER):
                async with contextlib.AsyncExitStack() as locks:
                    entries: dict[str, Entry] = {}
                    # in one order, or two of these wait for each other
                    for key_id in sorted(key_ids[start : start + _ADDED_TOGETHER]):
                        await locks.enter_async_context(self.locks.of(key_id))
                        entry = self.desired.get(key_id)
                        if entry is not None and key_id in self._pending and key_id not in self.expired:
                            entries[key_id] = entry
                    users = [_user(entry.spec) for entry in entries.values() if entry.spec is not None]
                    added += [(entries[user.email], user) for user in await add_many(instance, self.tag, users)]
            listed = {user.email: user for user in await instance.api.list_users(self.tag)}
        except XrayCallFailed as error:
            log.warning("many keys at once were not all added", reason=str(error))
            return
        for entry, user in added:
            same = self.desired.get(entry.key_id) is entry and entry.key_id not in self.expired
            if same and self.xray.current is instance and listed.get(user.email) == user:
                instance.mark_serving(user)
                self._pending.pop(entry.key_id, None)

    async def _converge_limited(self, key_id: str, limit: trio.CapacityLimiter) -> None:
        try:
            await self.converge(key_id)
        except (XrayDown, XrayCallFailed) as error:
            log.warning("a key could not be applied yet and is tried again", key=key_id, reason=str(error))
        finally:
            limit.release_on_behalf_of(key_id)

    async def _converge_in(self, instance: XrayInstance, key_id: str) -> int:
        entry = self.desired.get(key_id)
        spec = None if entry is None else entry.spec
        if spec is None or key_id in self.expired:
            cut = await stop_serving(instance, self.tag, key_id)
            with contextlib.suppress(trio.WouldBlock):  # many at once: the later ones go without the second look
                self._removals.send_nowait((instance, key_id))
        else:
            cut = await serve(instance, self.tag, _user(spec), self.mark_pending)
        if self.xray.current is not instance:
            raise XrayDown("Xray ended while the change was made; it starts again with it")
        if self.desired.get(key_id) is entry:
            self._pending.pop(key_id, None)
        return cut


def _user(spec: KeySpec) -> XrayUser:
    return XrayUser(spec.key_id, spec.uuid, spec.flow)
