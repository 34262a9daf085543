"""The node: takes changes of keys, answers what it does with each, and ends keys at their time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from heapq import nsmallest
from typing import Final

import attrs
import trio

from runtime import get_logger
from vpn.agent.config import metrics
from vpn.agent.state.clock import NodeClock, TimeSource
from vpn.agent.state.desired import Conflict
from vpn.agent.state.expiry import BackendContact, ExpiryQueue, is_over
from vpn.agent.state.store import Store
from vpn.agent.xray.convergence import AT_ONCE, Convergence
from vpn.agent.xray.instance import XrayInstance
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

log = get_logger(__name__)

_LONGEST_NAP: Final = 30.0
"Seconds after which expiry is looked at again at the latest."
_LOOK_SECONDS: Final = 1.0
"Seconds between two looks at whether the host's clock was set."
_MANY: Final = 20
_SHARE: Final = 0.05
"More keys than these, and than this share of those served, are not ended at once while the backend is silent."


class UnknownInbound(ValueError):
    """A key asks for an inbound, or a flow, that this node does not have."""


@attrs.define(eq=False)
class AgentNode:
    """Keeps what is wanted, and has Xray made equal to it.

    A change is written down, made in Xray, read back, and only then confirmed. What could not be confirmed is tried
    again until it is (`convergence`). `clock` decides when keys end; the silence of the backend is measured by the clock that
    nothing sets (`contact`). `facts` describe the inbound that customers connect to.

    Keys are not ended on this node's word alone where that could be wrong for many: while no backend has confirmed what time it
    is, while one says another time, and more than 20 and 5 % of those served at once while it is silent. They are served on until
    the backend makes contact; `held` says how many, `why_held` why.
    """

    store: Store
    xray: XraySupervisor
    contact: BackendContact
    facts: InboundFacts
    clock: NodeClock
    convergence: Convergence = attrs.field(init=False)
    held: int = attrs.field(init=False, default=0)
    why_held: str = attrs.field(init=False, default="")
    _expired: set[str] = attrs.field(init=False, factory=set)
    _ended_upto: float = attrs.field(init=False, default=float("-inf"))
    _given_back: list[str] = attrs.field(init=False, factory=list)
    _queue: ExpiryQueue = attrs.field(init=False, factory=ExpiryQueue)
    _wake: trio.Event = attrs.field(init=False, factory=trio.Event)
    _cut_soon: dict[str, None] = attrs.field(init=False, factory=dict)
    _cut_wake: trio.Event = attrs.field(init=False, factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.convergence = Convergence(self.store.desired, self._expired, self.xray, self.facts.tag)
        for spec in self.store.desired.specs():
            if self._was_ended(spec):
                self._end(spec)
            else:
                self._queue.add(spec)
        self._end_due()  # before Xray starts with them
        self.store.on_change = self._key_changed

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
        with self.convergence.owned_by_request([spec.key_id]):
            created = await self.store.put(spec)
        if not created:
            self._key_changed(spec.key_id)
        await self.convergence.converge(spec.key_id)
        held = self.store.desired.wanted(spec.key_id)
        if held is None:
            raise Conflict(f"key {spec.key_id!r} was removed meanwhile", spec.generation)
        return Applied(spec.key_id, held.generation, created, self.state_of(spec.key_id), held.expires_at)

    async def remove(self, key_id: str, generation: int) -> Removed:
        """See VpnNode.remove. Raises Conflict, StoreFailed, XrayDown, XrayCallFailed."""
        existed = self.store.desired.wanted(key_id) is not None
        with self.convergence.owned_by_request([key_id]):
            is_new = await self.store.remove(key_id, generation)
        if not is_new:
            self._key_changed(key_id)
        return Removed(key_id, existed, await self.convergence.converge(key_id))

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
        limit = trio.CapacityLimiter(AT_ONCE)

        async def make(change: KeySpec | Removal, *, is_new: bool) -> None:
            key_id = change.key_id
            async with limit:
                try:
                    cut = await self.convergence.converge(key_id)
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

        with self.convergence.owned_by_request([change.key_id for change in acceptable]):
            changed = set(
                await self.store.change_all(acceptable, lambda change, error: failed.update({change.key_id: error}))
            )
            async with trio.open_nursery() as nursery:
                for change in acceptable:
                    if change.key_id in failed:
                        continue
                    if change.key_id not in changed:
                        self._key_changed(change.key_id)
                    nursery.start_soon(partial(make, change, is_new=change.key_id in changed))
        outcomes.update(failed)
        return [outcomes[change.key_id] for change in changes]

    async def kick(self, key_id: str) -> Kicked:
        """See VpnNode.kick. Raises XrayDown."""
        return Kicked(await (await self.xray.instance()).cut(key_id))

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
            if spec.key_id not in listed and not self.store.desired.has_changed(spec.key_id, since)
        ]
        before = {spec.key_id for spec in self.store.desired.specs()}
        with self.convergence.bulk_change():
            await self.store.forget(dropped)
            changed = await self.store.put_all(
                acceptable, lambda spec, error: refused.append((spec.key_id, str(error)))
            )
            await self.convergence.converge_all([*dropped, *changed])
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
        """What the node does with a wanted key right now. Of a key that is not wanted it says nothing useful: see
        `serves`.
        """
        if key_id in self._expired:
            return KeyState.EXPIRED
        instance = self.xray.current
        return (
            KeyState.PENDING
            if instance is None or key_id in self.convergence.pending or key_id not in instance.serving
            else KeyState.SERVING
        )

    def is_pending(self, key_id: str) -> bool:
        """Whether something was written down about this key, wanted or not, that Xray has not confirmed."""
        return key_id in self.convergence.pending or self.xray.current is None

    def get(self, key_id: str) -> NodeKey | None:
        """One wanted key with its state, or None."""
        spec = self.store.desired.wanted(key_id)
        return None if spec is None else NodeKey(spec, self.state_of(key_id))

    def counts(self) -> tuple[int, int, int]:
        """How many wanted keys are serving, expired and pending."""
        desired = self.store.desired
        expired = len(self._expired)
        if self.xray.current is None:
            return 0, expired, len(desired) - expired
        pending = sum(
            desired.wanted(key_id) is not None and key_id not in self._expired for key_id in self.convergence.pending
        )
        return len(desired) - expired - pending, expired, pending

    def on_access(self, instance: XrayInstance, access: Access) -> None:
        """Xray let a request in: if its customer has been removed, its connection is cut, too."""
        if access.email in instance.banned:
            self._cut_soon[access.email] = None
            self._cut_wake.set()

    def expired_after(self, after: str, limit: int) -> list[str]:
        """The ids of keys whose time is over that follow the key id `after`, in order, at most `limit`."""
        return nsmallest(limit, (key_id for key_id in self._expired if key_id > after))

    async def run(self) -> None:
        """Enforce expiry, retry what is pending, watch removed customers and the host's clock; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire)
            nursery.start_soon(self._watch_clock)
            nursery.start_soon(self.convergence.run)
            nursery.start_soon(self._cut_new_connections)

    def clock_changed(self) -> None:
        """The node's time was corrected or moved: decide anew which keys are over. Those that were ended too soon come back."""
        now = self.clock.now()
        back = []
        for key_id in sorted(self._expired):
            spec = self.store.desired.wanted(key_id)
            if spec is not None and not self._is_over(spec):
                back.append(key_id)
        if self._ended_upto > now or self.store.desired.ended_upto > now:
            # a silence that begins later must find them ended at their time, and not before
            self._ended_upto = now
            self.store.record_ended(now, too_far=True)
        for key_id in back:
            self._key_changed(key_id)
        if back:
            metrics.GIVEN_BACK.inc(len(back))
            log.warning("keys had been ended too soon and are served again", count=len(back))
            self._given_back += back
        self._wake.set()

    def contact_made(self) -> None:
        """The grace ends at another time than before, or ends were held until now: look at the next ends again."""
        self._wake.set()

    def grace(self) -> float:
        """Seconds that a key lives beyond its time right now."""
        if self.clock.source is not TimeSource.BACKEND and self.clock.offset is None:
            return self.contact.grace
        return self.contact.grace_at(self.clock.elapsed())

    def _is_over(self, spec: KeySpec) -> bool:
        return is_over(spec, self.clock.now(), self.grace(), self.store.desired.ended_upto)

    def _was_ended(self, spec: KeySpec) -> bool:
        return is_over(spec, self.clock.now(), math.inf, self.store.desired.ended_upto)

    def _end(self, spec: KeySpec) -> None:
        assert spec.expires_at is not None
        self._expired.add(spec.key_id)
        self._ended_upto = max(self._ended_upto, spec.expires_at.timestamp())

    def _key_changed(self, key_id: str) -> None:
        """A key changed: its expiry is new, and it is pending until Xray agrees."""
        spec = self.store.desired.wanted(key_id)
        self._expired.discard(key_id)
        if spec is not None:
            if self._was_ended(spec) or (self._is_over(spec) and not self._why_held(self.held + 1)):
                self._end(spec)
            else:
                self._queue.add(spec)
            self._wake.set()
        self.convergence.mark_pending(key_id)

    def _why_held(self, count: int) -> str:
        """Why so many keys are not ended now, though their time seems to be over; empty if they may be."""
        if not self.clock.may_end:
            return "no backend has said what time it is since this host was started"
        if self.clock.is_doubted:
            return "the backend has said another time than this node's, and has not confirmed it yet"
        most = max(_MANY, _SHARE * (len(self.store.desired) - len(self._expired)))
        if count > most and self.contact.is_silent(self.clock.elapsed()):
            return f"they are more than {most:.0f} at once, and no backend confirms the time"
        return ""

    def _end_due(self) -> list[str]:
        """End the keys whose time is over, unless they are held; returns their ids."""
        due: dict[str, KeySpec] = {}
        for key_id, end in self._queue.pop_due(self.clock.now(), self.grace()):
            spec = self.store.desired.wanted(key_id)
            if spec is not None and spec.expires_at is not None and spec.expires_at.timestamp() == end:
                due[key_id] = spec
        why = self._why_held(len(due)) if due else ""
        if why and not self.held:
            log.warning("keys whose time seems to be over are served on until the backend makes contact", reason=why)
        self.held, self.why_held = (len(due), why) if why else (0, "")
        for spec in due.values():
            if why:
                self._queue.add(spec)
            else:
                self._end(spec)
        return [] if why else list(due)

    async def _expire(self) -> None:
        while True:
            self._wake = trio.Event()
            back, self._given_back = self._given_back, []
            over = self._end_due()
            for key_id in over:
                self.convergence.mark_pending(key_id)
            self.store.record_ended(self._ended_upto)
            if over:
                metrics.EXPIRED.inc(len(over))
                log.info("keys have come to their end", count=len(over), grace_seconds=self.grace())
            if over or back:
                await self.convergence.converge_all([*over, *back])
                continue
            now, at = self.clock.now(), self.clock.elapsed()
            next_end = None if self.held else self._queue.next_end()
            nap = min(
                _LONGEST_NAP,
                math.inf if next_end is None else next_end + self.grace() - now,
                self.contact.next_change(at) - at + 0.001,
            )
            with trio.move_on_after(max(nap, 0.001)):
                await self._wake.wait()

    async def _watch_clock(self) -> None:
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if self.clock.look():
                metrics.CLOCK_STEPS.inc()
                if self.clock.source is not TimeSource.BACKEND:
                    self.clock_changed()

    async def _cut_new_connections(self) -> None:
        """Connections of removed customers that showed up only after the cut."""
        while True:
            await self._cut_wake.wait()
            self._cut_wake = trio.Event()
            instance = self.xray.current
            emails, self._cut_soon = list(self._cut_soon), {}
            if instance is None:
                continue
            for email in emails:
                if email not in instance.banned:
                    continue
                try:
                    cut = await instance.cut(email)
                except XrayCallFailed as error:
                    log.warning("a removed customer's new connection is still open", key=email, reason=str(error))
                else:
                    log.info("cut connections that a removed customer had just opened", key=email, connections=cut)
