"""The node: what is wanted, what Xray does, and making the second equal the first."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from runtime import get_logger
from vpn.agent import metrics
from vpn.agent.state.desired import Conflict, Entry
from vpn.agent.state.expiry import BackendContact, ExpiryQueue, NodeClock, is_over
from vpn.agent.state.store import Store
from vpn.agent.xray.instance import XrayInstance, add_many, serve, stop_serving, with_the_same_uuid
from vpn.agent.xray.key_locks import KeyLocks
from vpn.agent.xray.supervisor import XraySupervisor
from vpn.errors import XrayCallFailed, XrayDown
from vpn.protocol import (
    FLOW_VISION,
    Applied,
    InboundFacts,
    KeySpec,
    KeyState,
    Kicked,
    NodeKey,
    Removal,
    Removed,
    SyncOutcome,
)
from vpn.xray.access_log import Access
from vpn.xray.api import XrayUser

log = get_logger(__name__)

_AT_ONCE: Final = 16
_RETRY_PENDING: Final = 1.0
_LONGEST_NAP: Final = 30.0
_REMOVALS_WATCHED: Final = 1000
_READ_BACK_AT_ONCE_FOR: Final = 200
_ADDED_TOGETHER: Final = 100
_RESTART_FOR: Final = 500
"From this many new keys on, an Xray that never served anybody is started anew: 0.35 s instead of a minute for 50 000."


class UnknownInbound(ValueError):
    """A key asks for an inbound, or a flow, that this node does not have."""


@attrs.define(eq=False)
class AgentNode:
    """Keeps Xray's users equal to the wanted set.

    A change is written down, made in Xray, read back, and only then confirmed. Whatever could not be confirmed is
    tried again until it is. `clock` decides when keys end; silence of the backend is measured in real time. Whoever changes
    something about one key in Xray holds its lock.
    """

    store: Store
    keeper: XraySupervisor
    contact: BackendContact
    facts: InboundFacts
    clock: NodeClock
    removals: trio.MemoryReceiveChannel[tuple[XrayInstance, str]] = attrs.field(init=False)
    _removals: trio.MemorySendChannel[tuple[XrayInstance, str]] = attrs.field(init=False)
    _expired: set[str] = attrs.field(init=False, factory=set)
    _ended_upto: float = attrs.field(init=False, default=float("-inf"))
    _queue: ExpiryQueue = attrs.field(init=False, factory=ExpiryQueue)
    _pending: dict[str, None] = attrs.field(init=False, factory=dict)
    locks: KeyLocks = attrs.field(init=False, factory=KeyLocks)
    _wake: trio.Event = attrs.field(init=False, factory=trio.Event)
    _taken: Counter[str] = attrs.field(init=False, factory=Counter)
    _converging: int = attrs.field(init=False, default=0)
    _cut_soon: dict[str, None] = attrs.field(init=False, factory=dict)
    _cut_wake: trio.Event = attrs.field(init=False, factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._removals, self.removals = trio.open_memory_channel(_REMOVALS_WATCHED)
        for spec in self.store.desired.specs():
            self._judge(spec)
        self.store.on_change = self._note

    def users(self) -> list[XrayUser]:
        """The users that Xray should have now."""
        return [_user(spec) for spec in self.store.desired.specs() if spec.key_id not in self._expired]

    def check(self, spec: KeySpec) -> None:
        """Raise UnknownInbound if this node could not serve such a key."""
        unknown = set(spec.inbounds) - {self.facts.tag}
        if unknown:
            raise UnknownInbound(f"inbound {min(unknown)[:64]!r} does not exist here; this node has {self.facts.tag!r}")
        if spec.flow == FLOW_VISION and self.facts.security != "reality":
            raise UnknownInbound(
                f"flow {FLOW_VISION} needs REALITY, and this node's inbound has security {self.facts.security!r}"
            )

    async def put(self, spec: KeySpec) -> Applied:
        """See VpnNode.put. Raises UnknownInbound, Conflict, UuidTaken, StoreFailed, XrayDown, XrayCallFailed."""
        self.check(spec)
        with self._taken_up([spec.key_id]):
            created = await self.store.put(spec)
        if not created:
            self._note(spec.key_id)
        await self._converge(spec.key_id)
        held = self.store.desired.wanted(spec.key_id)
        if held is None:
            raise Conflict(f"key {spec.key_id!r} was removed meanwhile", spec.generation)
        return Applied(spec.key_id, held.generation, created, self.state_of(spec.key_id), held.expires_at)

    async def remove(self, key_id: str, generation: int) -> Removed:
        """See VpnNode.remove. Raises Conflict, StoreFailed, XrayDown, XrayCallFailed."""
        existed = self.store.desired.wanted(key_id) is not None
        with self._taken_up([key_id]):
            is_new = await self.store.remove(key_id, generation)
        if not is_new:
            self._note(key_id)
        return Removed(key_id, existed, await self._converge(key_id))

    async def batch(self, changes: Sequence[KeySpec | Removal]) -> list[Applied | Removed | Exception]:
        """See VpnNode.batch: written down in their order, then made in Xray several at a time. The failures that `put` and
        `remove` would raise are outcomes. Raises StoreFailed."""
        failed: dict[str, Exception] = {}
        existed = {change.key_id for change in changes if self.store.desired.wanted(change.key_id) is not None}
        for change in changes:
            if isinstance(change, KeySpec):
                try:
                    self.check(change)
                except UnknownInbound as error:
                    failed[change.key_id] = error
        acceptable = [change for change in changes if change.key_id not in failed]
        outcomes: dict[str, Applied | Removed | Exception] = {}
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def make(change: KeySpec | Removal, *, is_new: bool) -> None:
            key_id = change.key_id
            async with limit:
                try:
                    cut = await self._converge(key_id)
                except (XrayDown, XrayCallFailed) as error:
                    outcomes[key_id] = error
                    return
            held = self.store.desired.wanted(key_id)
            if isinstance(change, Removal):
                outcomes[key_id] = Removed(key_id, key_id in existed, cut)
            elif held is None:
                outcomes[key_id] = Conflict(f"key {key_id!r} was removed meanwhile", change.generation)
            else:
                outcomes[key_id] = Applied(key_id, held.generation, is_new, self.state_of(key_id), held.expires_at)

        with self._taken_up([change.key_id for change in acceptable]):
            changed = set(
                await self.store.change_all(acceptable, lambda change, error: failed.update({change.key_id: error}))
            )
            async with trio.open_nursery() as nursery:
                for change in acceptable:
                    if change.key_id in failed:
                        continue
                    if change.key_id not in changed:
                        self._note(change.key_id)
                    nursery.start_soon(partial(make, change, is_new=change.key_id in changed))
        outcomes.update(failed)
        return [outcomes[change.key_id] for change in changes]

    async def kick(self, key_id: str) -> Kicked:
        """See VpnNode.kick. Raises XrayDown."""
        return Kicked(await (await self.keeper.life()).cut(key_id))

    async def sync(self, specs: Sequence[KeySpec], unchanged_since: int | None) -> SyncOutcome:
        """See VpnNode.sync. Keys that changed after sequence `unchanged_since` are not dropped."""
        since = self.store.desired.sequence if unchanged_since is None else unchanged_since
        refused: list[tuple[str, str]] = []
        acceptable: list[KeySpec] = []
        for spec in specs:
            try:
                self.check(spec)
            except UnknownInbound as error:
                refused.append((spec.key_id, str(error)))
            else:
                acceptable.append(spec)
        listed = {spec.key_id for spec in specs}
        dropped = [
            spec.key_id
            for spec in self.store.desired.specs()
            if spec.key_id not in listed and not self._changed(spec.key_id, since)
        ]
        before = {spec.key_id for spec in self.store.desired.specs()}
        with self._busy():
            await self.store.forget(dropped)
            changed = await self.store.put_all(
                acceptable, lambda spec, error: refused.append((spec.key_id, str(error)))
            )
            await self._converge_all([*dropped, *changed])
        added = sum(key_id not in before for key_id in changed)
        return SyncOutcome(
            added=added,
            changed=len(changed) - added,
            removed=len(dropped),
            unchanged=len(specs) - len(changed) - len(refused),
            refused=tuple(refused),
        )

    def serves(self, key_id: str) -> bool:
        """Whether the key is wanted and its time not over."""
        return self.store.desired.wanted(key_id) is not None and key_id not in self._expired

    def state_of(self, key_id: str) -> KeyState:
        """What happens to a wanted key right now."""
        if key_id in self._expired:
            return KeyState.EXPIRED
        life = self.keeper.current
        return (
            KeyState.PENDING
            if life is None or key_id in self._pending or key_id not in life.serving
            else KeyState.SERVING
        )

    def is_pending(self, key_id: str) -> bool:
        """Whether something was written down about this key, wanted or not, that Xray has not confirmed."""
        return key_id in self._pending or self.keeper.current is None

    def get(self, key_id: str) -> NodeKey | None:
        """One wanted key."""
        spec = self.store.desired.wanted(key_id)
        return None if spec is None else NodeKey(spec, self.state_of(key_id))

    def counts(self) -> tuple[int, int, int]:
        """Wanted keys by state: serving, expired, pending."""
        desired = self.store.desired
        expired = len(self._expired)
        if self.keeper.current is None:
            return 0, expired, len(desired) - expired
        pending = sum(desired.wanted(key_id) is not None and key_id not in self._expired for key_id in self._pending)
        return len(desired) - expired - pending, expired, pending

    def on_access(self, life: XrayInstance, access: Access) -> None:
        """A request was let in: if its customer has been removed, its connection goes too."""
        if access.email in life.banned:
            self._cut_soon[access.email] = None
            self._cut_wake.set()

    async def run(self) -> None:
        """Enforce expiry, retry what is pending, watch removed customers; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire)
            nursery.start_soon(self._retry)
            nursery.start_soon(self._cut_late)

    async def verify(self) -> int:
        """Compare Xray's users with the wanted keys and put right what differs; returns how many did. Raises XrayDown or
        XrayCallFailed."""
        life = await self.keeper.life()
        busy, since = set(self._pending), self.store.desired.sequence
        listed = {user.email.lower(): user for user in await life.api.list_users(self.facts.tag)}
        wanted = {user.email: user for user in self.users()}
        differing = [
            email
            for email in listed.keys() | wanted.keys()
            if listed.get(email) != wanted.get(email) and email not in busy and not self._changed(email, since)
        ]
        # Removing one of two users with the same UUID locks out the other, who stays listed: both have to go first.
        shared = with_the_same_uuid(listed.values())
        differing = [*dict.fromkeys((*differing, *shared))]
        for email in differing:
            life.stopped(email)  # what was confirmed once is not true any more
            self._pending[email] = None
        for email in shared:
            await life.api.remove_user(self.facts.tag, email)
        if differing:
            metrics.REPAIRED.inc(len(differing))
            log.warning("Xray's users differ from the wanted keys and are put right", count=len(differing))
            await self._converge_all(differing)
        return len(differing)

    def clock_changed(self) -> None:
        """The node's clock was moved: look at expiry again."""
        for key_id in sorted(self._expired):
            spec = self.store.desired.wanted(key_id)
            if spec is not None and not self._is_over(spec):
                self._note(key_id)
        self._wake.set()

    def grace_changed(self) -> None:
        """The grace ends at another time than before: look at expiry again."""
        self._wake.set()

    def _grace(self) -> float:
        return self.contact.grace_at(self.clock.real())

    def _is_over(self, spec: KeySpec) -> bool:
        return is_over(spec, self.clock.now(), self._grace(), self.store.desired.ended_upto)

    def _judge(self, spec: KeySpec) -> None:
        if self._is_over(spec):
            assert spec.expires_at is not None
            self._expired.add(spec.key_id)
            self._ended_upto = max(self._ended_upto, spec.expires_at.timestamp())
        else:
            self._queue.add(spec)
        self._wake.set()

    def _changed(self, key_id: str, since: int) -> bool:
        entry = self.store.desired.get(key_id)
        return entry is not None and entry.sequence > since

    def _note(self, key_id: str) -> None:
        """A key changed: its expiry is new, and it is pending until Xray agrees."""
        spec = self.store.desired.wanted(key_id)
        self._expired.discard(key_id)
        if spec is not None:
            self._judge(spec)
        self._pending[key_id] = None

    @contextlib.contextmanager
    def _taken_up(self, key_ids: Sequence[str]) -> Iterator[None]:
        """Whoever asked for a change makes it in Xray, too, and tells what that did: it is not to be retried meanwhile."""
        self._taken.update(key_ids)
        try:
            yield
        finally:
            self._taken.subtract(key_ids)
            self._taken = +self._taken

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """What is pending is somebody's work, and not to be retried meanwhile."""
        self._converging += 1
        try:
            yield
        finally:
            self._converging -= 1

    async def _converge_all(self, key_ids: Sequence[str]) -> None:
        with self._busy():
            await self._converge_these(key_ids)

    async def _converge_these(self, key_ids: Sequence[str]) -> None:
        life = self.keeper.current
        if len(key_ids) >= _RESTART_FOR and life is not None and not life.has_served:
            self.keeper.restart()
            try:
                fresh = await self.keeper.life(within=30.0)
            except XrayDown as error:
                log.warning(
                    "many keys could not be applied yet and are tried again", count=len(key_ids), reason=str(error)
                )
                return
            for key_id in key_ids:
                if key_id in fresh.serving or self.store.desired.wanted(key_id) is None:
                    self._pending.pop(key_id, None)
        elif len(key_ids) >= _READ_BACK_AT_ONCE_FOR and life is not None:
            await self._add_many(life, key_ids)
        key_ids = [key_id for key_id in key_ids if key_id in self._pending]
        limit = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for key_id in key_ids:
                await limit.acquire_on_behalf_of(key_id)
                nursery.start_soon(self._converge_limited, key_id, limit)

    async def _add_many(self, life: XrayInstance, key_ids: Sequence[str]) -> None:
        """Add those that Xray does not have and read all of them back in one go: half the calls. What cannot be confirmed
        so stays pending."""
        added: list[tuple[Entry, XrayUser]] = []
        try:
            for start in range(0, len(key_ids), _ADDED_TOGETHER):
                async with contextlib.AsyncExitStack() as locks:
                    entries: dict[str, Entry] = {}
                    for key_id in sorted(
                        key_ids[start : start + _ADDED_TOGETHER]
                    ):  # in one order, or two of these wait
                        await locks.enter_async_context(self.locks.of(key_id))
                        entry = self.store.desired.get(key_id)
                        if entry is not None and key_id in self._pending and key_id not in self._expired:
                            entries[key_id] = entry
                    users = [_user(entry.spec) for entry in entries.values() if entry.spec is not None]
                    added += [(entries[user.email], user) for user in await add_many(life, self.facts.tag, users)]
            listed = {user.email: user for user in await life.api.list_users(self.facts.tag)}
        except XrayCallFailed as error:
            log.warning("many keys at once were not all added", reason=str(error))
            return
        for entry, user in added:
            same = self.store.desired.get(entry.key_id) is entry and entry.key_id not in self._expired
            if same and self.keeper.current is life and listed.get(user.email) == user:
                life.serves(user)
                self._pending.pop(entry.key_id, None)

    async def _converge_limited(self, key_id: str, limit: trio.CapacityLimiter) -> None:
        try:
            await self._converge(key_id)
        except (XrayDown, XrayCallFailed) as error:
            log.warning("a key could not be applied yet and is tried again", key=key_id, reason=str(error))
        finally:
            limit.release_on_behalf_of(key_id)

    async def _converge(self, key_id: str) -> int:
        """Make Xray agree about one key and read it back; returns the connections cut."""
        async with self.locks.of(key_id):
            life = await self.keeper.life()
            try:
                return await self._converge_in(life, key_id)
            except (XrayDown, XrayCallFailed):
                if not await self.keeper.has_ended(life):
                    raise
            return await self._converge_in(await self.keeper.life(), key_id)

    def _displaced(self, key_id: str) -> None:
        self._pending[key_id] = None

    async def _converge_in(self, life: XrayInstance, key_id: str) -> int:
        entry = self.store.desired.get(key_id)
        spec = None if entry is None else entry.spec
        if spec is None or key_id in self._expired:
            cut = await stop_serving(life, self.facts.tag, key_id)
            with contextlib.suppress(trio.WouldBlock):  # many at once: the later ones go without the second look
                self._removals.send_nowait((life, key_id))
        else:
            cut = await serve(life, self.facts.tag, _user(spec), self._displaced)
        if self.keeper.current is not life:
            raise XrayDown("Xray ended while the change was made; it starts again with it")
        if self.store.desired.get(key_id) is entry:
            self._pending.pop(key_id, None)
        return cut

    async def _expire(self) -> None:
        while True:
            self._wake = trio.Event()
            now, grace = self.clock.now(), self._grace()
            over = []
            for key_id, end in self._queue.pop_due(now, grace):
                spec = self.store.desired.wanted(key_id)
                if spec is not None and spec.expires_at is not None and spec.expires_at.timestamp() == end:
                    self._expired.add(key_id)
                    self._ended_upto = max(self._ended_upto, end)
                    self._pending[key_id] = None
                    over.append(key_id)
            self.store.end(self._ended_upto)
            if over:
                metrics.EXPIRED.inc(len(over))
                log.info("keys have come to their end", count=len(over), grace_seconds=grace)
                await self._converge_all(over)
                continue
            next_end = self._queue.next_end()
            nap = min(
                _LONGEST_NAP,
                math.inf if next_end is None else next_end + grace - now,
                self.contact.next_change(self.clock.real()) - self.clock.real() + 0.001,
            )
            with trio.move_on_after(max(nap, 0.001)):
                await self._wake.wait()

    async def _retry(self) -> None:
        while True:
            await trio.sleep(_RETRY_PENDING)
            # many keys at once are somebody's work already, and a key that is locked is, too
            if self.keeper.current is not None and not self._converging:
                await self._converge_all(
                    [key_id for key_id in self._pending if key_id not in self.locks and key_id not in self._taken]
                )

    async def _cut_late(self) -> None:
        """Connections of removed customers that showed up only after the cut."""
        while True:
            await self._cut_wake.wait()
            self._cut_wake = trio.Event()
            life = self.keeper.current
            emails, self._cut_soon = list(self._cut_soon), {}
            if life is None:
                continue
            for email in emails:
                if email not in life.banned:
                    continue
                try:
                    cut = await life.cut(email)
                except XrayCallFailed as error:
                    log.warning("a removed customer's new connection is still open", key=email, reason=str(error))
                else:
                    log.info("cut connections that a removed customer had just opened", key=email, connections=cut)


def _user(spec: KeySpec) -> XrayUser:
    return XrayUser(spec.key_id, spec.uuid, spec.flow)
