"""One pass of reconciling over one node: digest first, pages after, removals last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, TypeVarTuple

import attrs
import trio

from actors.keys.diff import KeyDiff, diff_keys, duplicate_uuids, key_spec, why_implausible
from actors.keys.events import (
    KEY_DIFFERENCES,
    KEYS_QUARANTINED,
    DuplicateUuid,
    EndedRemoved,
    NodeDrifted,
    NodeRestored,
    SurplusRemoved,
    UnlistedRemoved,
)
from actors.leadership.leader_lease import LeaderLease
from actors.nodes.messages import (
    ChangeKeys,
    ListKeys,
    ReadKey,
    ReadState,
    RemoveKey,
    ReplaceKeys,
    RestoreKeys,
    canary_key_spec,
)
from db.keys.canary import find_canary_key
from db.keys.placements import record_missing
from db.keys.reconcile import (
    ExpectedKey,
    ReconcilePass,
    begin_pass,
    digest_part,
    expected_page,
    find_expected,
    finish_pass,
    place_keys,
    record_present,
    save_position,
    want_newer_generation,
)
from db.keys.sightings import (
    Sighting,
    UnwantedKey,
    confirm_known,
    confirm_unwanted,
    forget_sighting,
    known_unwanted,
    record_gone,
    record_sightings,
    ripe_sightings,
    unwanted_of,
)
from db.tx import Tx
from runtime import Budget, Context, Request
from vpn.digest import digest_text, key_digest
from vpn.errors import NodeCannotList, NodeConflict, NodeRefused
from vpn.protocol import CAN_LIST, CAN_SYNC, MAX_BATCH, Applied, NodeKey, NodeState, Removal, Removed

R = TypeVar("R")
T = TypeVar("T")
Args = TypeVarTuple("Args")

_PART = 10_000
_LIST_PAGE = 500
_EQUAL = "equal"
_APPLY_LOOK = 0.1
_MOST_KEYS = 500_000
"""Keys of one node at which a list is not read on, whatever the node says of itself."""
_SOMETHING = "?"
"""What is in quarantine on a node that cannot list: no key has this name."""


class Implausible(Exception):
    """What the node says cannot be true, or would take away too much; the text says what."""


@attrs.frozen
class PassLimits:
    """What a pass may do to strangers: `removals` a pass, after `grace` seconds; more of them than `surplus_floor` keys and
    `surplus_share` of all removes none. None of this holds for keys that the database knows as removed."""

    grace: float
    removals: int
    surplus_floor: int
    surplus_share: float
    page_size: int
    restore_from: int
    patience: float


@attrs.define(eq=False)
class NodePass:
    """Compares one node with the database and puts right what differs. Made for one pass, or for the rest of one."""

    context: Context
    lease: LeaderLease
    node: str
    limits: PassLimits
    budget: Budget
    is_settled: bool = attrs.field(init=False, default=True)
    """False after a run that put keys back which the node has still to apply, or met keys that it confirmed meanwhile: look
    again soon."""
    _pass: ReconcilePass = attrs.field(init=False)
    _missing: list[ExpectedKey] = attrs.field(init=False, factory=list)
    _ahead: int = attrs.field(init=False, default=0)
    _restored: int = attrs.field(init=False, default=0)
    _ended: int = attrs.field(init=False, default=0)

    async def run(self) -> str:
        """Returns the verdict: equal, drifted (and put right as far as possible), unfinished, or not ready.

        Raises Implausible, the errors of `vpn.errors`, AskError, LeaseError, and LostEpoch.
        """
        state = await self._ask(ReadState())
        if not state.ready:
            return "not ready"
        begun = await self._run("begin", begin_pass, self.lease.epoch, self.node)
        if begun is None:
            return "not registered"
        self._pass = begun
        if begun.position == "":
            await self._place()
            state = await self._ask(ReadState())
            if await self._is_equal(state):
                await self._run("sighted", ripe_sightings, self.lease.epoch, self.node, begun.number + 1, 0.0, 0)
                await self._run("finish", finish_pass, self.lease.epoch, self.node, _EQUAL, state.boot_id)
                KEYS_QUARANTINED.labels(self.node).set(0)
                return _EQUAL
        self.context.failpoint("differs")
        return await self._compare_listed(state)

    async def _place(self) -> None:
        after: int | None = 0
        while after is not None:
            after = await self._run("place", place_keys, self.lease.epoch, self.node, after, _PART)

    async def _is_equal(self, state: NodeState) -> bool:
        """Whether the digest of what the rows believe is what the node says, and nothing else is open."""
        count, behind, total = await self._expected_state()
        return (count, behind, state.pending, digest_text(total)) == (state.count, 0, 0, state.digest)

    async def _expected_state(self) -> tuple[int, int, int]:
        """What the rows say that the node has: how many keys, how many more it should have, and the digest."""
        canary = await self._run("canary", find_canary_key, self.node)
        count = behind = total = 0
        if canary is not None and canary.is_confirmed:
            count, total = 1, key_digest(canary_key_spec(canary))
        after: int | None = 0
        while after is not None:
            part = await self._run("digest", digest_part, self.node, after, _PART)
            count, behind, total, after = count + part.count, behind + part.behind, total ^ part.digest, part.last
        return count, behind, total

    async def _compare_listed(self, state: NodeState) -> str:
        """Compare page by page from where the pass stands, and remove at its end."""
        if CAN_LIST not in state.capabilities:
            return await self._compare_unlisted(state)
        try:
            listed = await self._list(state)
        except NodeCannotList:
            return await self._compare_unlisted(state)
        after_list = await self._ask(ReadState())
        if why := why_implausible(listed, state, after_list):
            raise Implausible(why)
        position = await self._compare(listed, after_list)
        await self._restore(after_list)
        if position is not None:
            # only now: a pass that goes on from there does not look at these keys again
            await self._run("position", save_position, self.lease.epoch, self.node, position)
            return "unfinished"
        quarantined, ripe = await self._run(
            "sighted",
            ripe_sightings,
            self.lease.epoch,
            self.node,
            self._pass.number,
            self.limits.grace,
            max(0, self.limits.removals - self._pass.removals),
        )
        KEYS_QUARANTINED.labels(self.node).set(quarantined)
        self._report(quarantined)
        limit = max(self.limits.surplus_floor, int(self.limits.surplus_share * len(listed)))
        if quarantined > limit:
            raise Implausible(self._too_many(quarantined, len(listed), limit))
        twins = {key_id: other for pair in duplicate_uuids(listed) for key_id, other in (pair, pair[::-1])}
        for key_id in ripe:
            if self.budget.is_spent:
                return "unfinished"
            await self._remove(key_id, twins.get(key_id))
        for one, other in duplicate_uuids(listed):
            self.context.emit(DuplicateUuid(actor=self.context.name, node=self.node, one=one, other=other))
        await self._run("finish", finish_pass, self.lease.epoch, self.node, "drifted", after_list.boot_id)
        return "drifted"

    async def _compare_unlisted(self, state: NodeState) -> str:
        """A node that cannot list is told everything again, in changes that are confirmed key by key. If it has something else
        even so, now and in a later pass, it is given the full set."""
        while True:
            position = await self._compare({}, state, pages=1)
            await self._restore(state, can_list=False)
            if position is None:
                break
            await self._run("position", save_position, self.lease.epoch, self.node, position)
            self._pass = attrs.evolve(self._pass, position=position)
            if self.budget.is_spent:
                return "unfinished"
        after = await self._ask(ReadState())
        is_equal = await self._is_equal(after)
        if not is_equal:
            # it cannot say which of the keys that were ours it still has, so it is told that all of them are gone
            after = await self._remove_all_known(after)
            is_equal = await self._is_equal(after)
        seen = [] if is_equal else [Sighting(_SOMETHING, 0, is_known=False)]
        await self._run("sightings", record_sightings, self.lease.epoch, self.node, self._pass.number, seen)
        _, ripe = await self._run(
            "sighted", ripe_sightings, self.lease.epoch, self.node, self._pass.number, self.limits.grace, 1
        )
        KEYS_QUARANTINED.labels(self.node).set(len(seen))
        if ripe:
            await self._replace(after)
        await self._run("finish", finish_pass, self.lease.epoch, self.node, "told again", after.boot_id)
        return "told again"

    async def _remove_all_known(self, state: NodeState) -> NodeState:
        row: int | None = 0
        while row is not None:
            await self.lease.ensure_held()
            keys, row = await self._run("known", known_unwanted, self.node, row, MAX_BATCH)
            await self._remove_known(keys)
            self.budget.progress()
        return await self._ask(ReadState()) if self._ended else state

    async def _replace(self, state: NodeState) -> None:
        """Give the node the full set: what it has besides goes, except what it learned of after `state`."""
        count, _, _ = await self._expected_state()
        limit = max(self.limits.surplus_floor, int(self.limits.surplus_share * state.count))
        if state.count - count > limit:
            raise Implausible(self._too_many(state.count - count, state.count, limit))
        if CAN_SYNC not in state.capabilities:
            raise Implausible(
                "it has something else than it should, and can neither list its keys nor take a full set: put an agent of this "
                "version there"
            )
        canary = await self._run("canary", find_canary_key, self.node)
        wanted = [] if canary is None else [canary_key_spec(canary)]
        position = ""
        while page := await self._run("page", expected_page, self.node, position, self.limits.page_size):
            wanted += [key_spec(key, self._pass) for key in page if key.status in ("active", "pending")]
            position = page[-1].key_id
        await self.lease.ensure_held()
        self.context.failpoint("removing")
        outcome = await self._ask(ReplaceKeys(tuple(wanted), state.sequence), patience=120.0)
        KEY_DIFFERENCES.labels(self.node, "removed").inc(outcome.removed)
        self.context.emit(UnlistedRemoved(actor=self.context.name, node=self.node, keys=outcome.removed))
        await self._run("forget", forget_sighting, self.lease.epoch, self.node, _SOMETHING)
        await self.budget.count()

    def _too_many(self, surplus: int, listed: int, limit: int) -> str:
        return (
            f"{surplus} of its {listed} keys are unknown here; more than {limit} are not removed: is this the right "
            "database, and the right node? If so, raise surplus_floor of the actor `reconcile`"
        )

    async def _list(self, state: NodeState) -> dict[str, NodeKey]:
        """All that the node lists. Raises Implausible as soon as that is more than it can have, as it says of itself."""
        listed: dict[str, NodeKey] = {}
        after: str | None = ""
        most = state.count
        while after is not None:
            page = await self._ask(ListKeys(after, _LIST_PAGE))
            listed.update((key.spec.key_id, key) for key in page.keys)
            after = page.next
            if len(listed) > most:
                now = await self._ask(ReadState())
                most = min(_MOST_KEYS, max(state.count, now.count) + abs(now.sequence - state.sequence))
                if len(listed) > most:
                    raise Implausible(f"it lists {len(listed)} keys and more, and says that it has {now.count}")
            self.budget.progress()
            await trio.lowlevel.checkpoint()
        return listed

    async def _compare(self, listed: dict[str, NodeKey], state: NodeState, pages: int | None = None) -> str | None:
        """Compare all pages, or so many of them; None at the end, else where to go on: time ran out, or there are more pages.
        Surplus keys go to quarantine on the way."""
        position = self._pass.position
        names = sorted(name for name in listed if name > position)
        walked = compared = 0
        while True:
            page = await self._run("page", expected_page, self.node, position, self.limits.page_size)
            end = page[-1].key_id if len(page) == self.limits.page_size else None
            until = len(names) if end is None else _index_after(names, end, walked)
            known = {key.key_id for key in page}
            surplus = [name for name in names[walked:until] if name not in known]
            walked = until
            diff = diff_keys(page, listed, self._pass)
            await self._handle(diff, state)
            await self._sight([*diff.unwanted, *surplus], listed)
            self.context.failpoint("compared")
            if end is None:
                return None
            position = end
            compared += 1
            if self.budget.is_spent or compared == pages:
                return position
            await trio.lowlevel.checkpoint()

    async def _handle(self, diff: KeyDiff, state: NodeState) -> None:
        self._missing += diff.missing
        self._ahead += len(diff.node_is_newer)
        if diff.undecided:
            self.is_settled = False
        if diff.unconfirmed:
            await self._run("note", record_present, self.lease.epoch, self.node, state.boot_id, diff.unconfirmed)
        if diff.node_is_newer:
            await self._run("overtake", want_newer_generation, self.lease.epoch, diff.node_is_newer)
        self.budget.progress()

    async def _sight(self, names: Sequence[str], listed: dict[str, NodeKey]) -> None:
        """Remove at once what is known here and wanted no more; quarantine what was never known."""
        surplus = await self._run("unwanted", unwanted_of, self.node, names) if names else []
        if not surplus:
            return
        seen = [Sighting(key.key_id, listed[key.key_id].spec.generation, key.is_known) for key in surplus]
        await self._run("sightings", record_sightings, self.lease.epoch, self.node, self._pass.number, seen)
        known = [key.key_id for key in surplus if key.is_known]
        for start in range(0, len(known), MAX_BATCH):
            await self.lease.ensure_held()
            # read again: who renewed meanwhile keeps the key, also because the node refuses a removal older than what it has
            batch = await self._run(
                "confirm", confirm_known, self.lease.epoch, self.node, known[start : start + MAX_BATCH]
            )
            await self._remove_known(
                [attrs.evolve(key, generation=max(key.generation, listed[key.key_id].spec.generation)) for key in batch]
            )

    async def _remove_known(self, keys: Sequence[UnwantedKey]) -> None:
        """Take keys off the node that the database knows and does not want there."""
        if not keys:
            return
        self.context.failpoint("removing")
        removals = tuple([Removal(key.key_id, key.generation) for key in keys])
        outcomes = await self._ask(ChangeKeys(removals), patience=60.0)
        self.context.failpoint("removed")
        gone = [
            (key.key_id, key.generation)
            for key, outcome in zip(keys, outcomes, strict=True)
            if isinstance(outcome, Removed)
        ]
        removed = [outcome for outcome in outcomes if isinstance(outcome, Removed) and outcome.existed]
        await self._run("gone", record_gone, self.lease.epoch, self.node, gone)
        if removed:
            self._ended += len(removed)
            cut = sum(outcome.cut for outcome in removed)
            KEY_DIFFERENCES.labels(self.node, "ended").inc(len(removed))
            self.context.emit(EndedRemoved(actor=self.context.name, node=self.node, keys=len(removed), cut=cut))
        await self.budget.count(len(removed))
        newer = {
            key.key_id: outcome.generation
            for key, outcome in zip(keys, outcomes, strict=True)
            if isinstance(outcome, NodeConflict) and outcome.generation > key.generation
        }
        if newer:  # told to the node by us a moment ago, because it was paid for, or by somebody else
            await self.lease.ensure_held()
            still = await self._run("confirm", confirm_known, self.lease.epoch, self.node, list(newer))
            await self._remove_known([attrs.evolve(key, generation=newer[key.key_id]) for key in still])

    async def _restore(self, state: NodeState, *, can_list: bool = True) -> None:
        """Everything that is missing, in one request if it is very much, else in batches that are confirmed key by key."""
        missing, self._missing = self._missing, []
        if not missing:
            return
        began = trio.current_time()
        self._restored += len(missing)
        KEY_DIFFERENCES.labels(self.node, "missing").inc(len(missing))
        lost = [key for key in missing if key.is_noted]
        if lost and can_list:  # before anything is tried: what cannot be put back now stays known as missing
            await self._run("missing", record_missing, self.lease.epoch, self.node, lost)
        # counted before it is done: an iteration that is cut off meanwhile is followed by the next one at once
        await self.budget.count(len(missing))
        if can_list and len(missing) >= self.limits.restore_from:
            await self._ask(RestoreKeys(tuple([key_spec(key, self._pass) for key in missing])), patience=120.0)
            self.context.failpoint("restored")
            after = await self._applied_state()
            # What was refused, or is not applied yet, stays missing: the next pass meets it, with the reason of a refusal.
            back = [attrs.evolve(key, is_missing=True) for key in missing]
            diff = diff_keys(back, await self._list(after), self._pass)
            self.is_settled &= len(diff.unconfirmed) == len(back)
            await self._handle(attrs.evolve(diff, missing=[]), after)
        else:
            for start in range(0, len(missing), MAX_BATCH):
                await self._put_batch(missing[start : start + MAX_BATCH], state)
        seconds = trio.current_time() - began
        self.context.emit(NodeRestored(actor=self.context.name, node=self.node, keys=len(missing), seconds=seconds))

    async def _applied_state(self) -> NodeState:
        """What the node says of itself once it has applied what it took, or time is short."""
        until = trio.current_time() + min(self.limits.patience, self.budget.remaining / 2)
        while (state := await self._ask(ReadState())).pending and trio.current_time() < until:
            self.budget.progress()
            await trio.sleep(_APPLY_LOOK)
        return state

    async def _put_batch(self, keys: Sequence[ExpectedKey], state: NodeState) -> None:
        await self.lease.ensure_held()  # as before every change of a node
        outcomes = await self._ask(ChangeKeys(tuple([key_spec(key, self._pass) for key in keys])), patience=60.0)
        self.context.failpoint("put back")
        diff = KeyDiff()
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, Applied):
                diff.unconfirmed.append(key)
            elif isinstance(outcome, NodeConflict):
                diff.node_is_newer.append((key, outcome.generation))
            elif isinstance(outcome, NodeRefused) and key.status == "active":
                # the activation worker counts the refusals of a key, and tells the operator; it has those that wait already
                diff.node_is_newer.append((key, key.generation))
        await self._handle(diff, state)

    async def _remove(self, key_id: str, duplicate: str | None) -> None:
        """Take a key off the node, after looking again on both sides, and after being sure that this is still our work."""
        found = await self._ask(ReadKey(key_id))
        if found is None:
            await self._run("forget", forget_sighting, self.lease.epoch, self.node, key_id)
            return
        await self.lease.ensure_held()
        if not await self._run("confirm", confirm_unwanted, self.lease.epoch, self.node, key_id):
            return
        self.context.failpoint("removing")
        removed = await self._ask(RemoveKey(key_id, found.spec.generation))
        self.context.failpoint("removed")
        if duplicate is not None:
            await self._renew_duplicate(duplicate)
        KEY_DIFFERENCES.labels(self.node, "removed").inc()
        self.context.emit(SurplusRemoved(actor=self.context.name, node=self.node, key_id=key_id, cut=removed.cut))
        await self._run("forget", forget_sighting, self.lease.epoch, self.node, key_id)
        await self.budget.count()

    async def _renew_duplicate(self, key_id: str) -> None:
        """The key that shared its UUID with a removed one is listed still, but refused: take it off and put it anew."""
        key = await self._run("twin", find_expected, self.node, key_id)
        found = await self._ask(ReadKey(key_id))
        if key is None or found is None:
            return
        generation = max(key.generation, found.spec.generation) + 1
        await self._ask(RemoveKey(key_id, generation))
        await self._run("overtake", want_newer_generation, self.lease.epoch, [(key, generation)])

    def _report(self, surplus: int) -> None:
        missing = self._restored
        KEY_DIFFERENCES.labels(self.node, "ahead").inc(self._ahead)
        if missing or self._ahead or surplus or self._ended:
            self.context.emit(
                NodeDrifted(
                    actor=self.context.name,
                    node=self.node,
                    missing=missing,
                    ahead=self._ahead,
                    surplus=surplus,
                    ended=self._ended,
                )
            )

    async def _ask(self, request: Request[R], patience: float | None = None) -> R:
        node = self.context.lookup(f"node.{self.node}")
        return await node.ask(request, within=patience or self.limits.patience)

    async def _run(self, step: str, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args) -> T:
        await self.lease.ensure_held()
        return await self.lease.pool.run(f"reconcile.{step}", function, *args)


def _index_after(names: Sequence[str], end: str, start: int) -> int:
    while start < len(names) and names[start] <= end:
        start += 1
    return start
