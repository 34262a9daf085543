"""The node actor: one VPN node, as ATLAS sees it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

import attrs
import trio

from actors.conditions import Condition, ConditionTracker
from actors.nodes.batching import Change, ChangeBatcher, ChangeOutcome
from actors.nodes.memory import FORGOTTEN, NodeForgot, NodeMemory
from actors.nodes.messages import (
    ChangeKeys,
    KickKey,
    ListKeys,
    Locate,
    PutKey,
    ReadKey,
    ReadState,
    ReadUsage,
    RemoveKey,
    ReplaceKeys,
    RestoreKeys,
)
from actors.nodes.ownership import NodeOwnership, NodeRestored
from actors.nodes.trouble import WRONG_KEYS, NodeTrouble, NodeXrayEnded, trouble_of_xray, xray_ended
from actors.pool.client import pool_of
from db.driver.classify import sqlstate
from db.errors import LeaseError
from db.keys.nodes import count_ended_too_soon, make_keys_due, record_node_seen, register_node
from db.keys.placements import wrong_keys
from db.tx import Tx
from runtime import Actor, AskError, Deferred, Event, Request, WakeUp, get_logger, handler
from vpn.errors import BreakerOpen, NodeError, NodeNotOwner, NodeTlsFailed, NodeUnavailable
from vpn.node.breaker import Breaker
from vpn.node.client import AgentClient
from vpn.node.settings import NodeSettings, NodesSettings
from vpn.node.wire import readable
from vpn.protocol import (
    CAN_LIST_EXPIRED,
    Applied,
    InboundFacts,
    KeyPage,
    Kicked,
    NodeKey,
    NodeState,
    Removal,
    Removed,
    SyncOutcome,
    UsagePage,
)


@attrs.frozen
class NodeBack(Event):
    """The node answers, for the first time or again."""

    level: ClassVar[int] = logging.INFO
    keys: int
    away: float | None
    """Seconds that it was away; None if it is reached for the first time."""

    def line(self) -> str:
        since = "reached" if self.away is None else f"back after {self.away:.1f} s"
        return f"{self.actor} is {since}, serving {self.keys} keys"


@attrs.frozen
class NodeAway(Event):
    """The node does not answer, or says that it cannot serve. Customers' changes wait as rows."""

    level: ClassVar[int] = logging.ERROR
    why: str

    def line(self) -> str:
        return f"{self.actor} is away: {self.why}"


log = get_logger("node")
R = TypeVar("R")
_NodeCall = Callable[[AgentClient], Awaitable[R]]

_CALLS: Final[Mapping[type[Request[Any]], Callable[[AgentClient, Any], Awaitable[Any]]]] = {
    ReadState: lambda node, _: node.state(),
    ChangeKeys: lambda node, asked: node.batch(asked.changes),
    # nothing that the node learned of after its first change is dropped: that is everything
    RestoreKeys: lambda node, asked: node.sync(asked.specs, unchanged_since=0),
    ReplaceKeys: lambda node, asked: node.sync(asked.specs, asked.unchanged_since),
    ReadKey: lambda node, asked: node.get(asked.key_id),
    ListKeys: lambda node, asked: node.list(asked.after, asked.limit),
    ReadUsage: lambda node, asked: node.usage(asked.since, after=asked.after, limit=asked.limit),
    KickKey: lambda node, asked: node.kick(asked.key_id),
}
"""How each request is put to the node. The handlers' signatures say what is answered; the framework checks those."""

_LOCATE_SECONDS = 5.0
_LOCATE_RETRY = 0.25


@attrs.define(eq=False)
class NodeActor(Actor):
    """Speaks to one node's agent for everybody in this process.

    Role: bounds the calls to the node, breaks the circuit while it is away, and keeps the database's facts about it fresh.
    Owns: the HTTP client and the breaker. Receives: the requests of `actors.nodes.messages`; each is answered by a task of its
    own, so a slow node delays no mailbox. Puts and removals that arrive while others are on their way are sent together.
    Sends: Locate to `agent.<key>` if the node is embedded; WakeUp to the workers when the node comes back or was started anew,
    after making due whatever waits for it.
    On crash: open requests fail with ActorCrashed; every one of them but a kick is idempotent, so callers repeat them.
    Invariants: at most `concurrency` calls at a time, and one more for looking at the node, so that slow calls never make it
    seem away; no lease is held during a call; nothing that a node says ends this actor. A node that serves, but takes no changes,
    has a wrong clock or another owner, or has ended keys too soon, is a condition and not away: it is asked as before.
    """

    key: str
    node: NodeSettings
    nodes: NodesSettings = attrs.field(factory=NodesSettings, kw_only=True)
    pool: str = "pool.main"
    wakes: tuple[str, ...] = ()
    """Workers that have something to do once the node is back."""
    concurrency: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    """Calls to the node at the same time."""
    probe_interval: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds between two looks at the node."""
    probe_patience: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Seconds after which a look that was not answered counts as the node being away."""
    first_pause: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds, scattered, that the open breaker waits before it lets one call through; twice as long after each that fails."""
    longest_pause: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Seconds that it waits at most."""
    count_interval: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    """Seconds after which wrong keys are counted again where none was wrong; where some are, they are at each look."""
    clock_tolerance: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that the node's clock may be away from the database's before that is a condition."""
    owner_interval: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """Seconds after which the nonce that makes this database the node's owner is changed: a copy that is older can never be
    it."""
    cooldown: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    """Seconds between two alerts about the same lasting condition."""
    memory_probation: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Seconds for which a node that has forgotten changes is not ready, if it forgets nothing more."""
    _client: AgentClient | None = attrs.field(init=False, default=None)
    _limiter: trio.CapacityLimiter = attrs.field(init=False)
    _state: NodeState | None = attrs.field(init=False, default=None)
    _looked_at: NodeState | None = attrs.field(init=False, default=None)
    _away_since: float | None = attrs.field(init=False, default=None)
    _wakes_are_due: bool = attrs.field(init=False, default=False)
    _conditions: ConditionTracker = attrs.field(init=False)
    _changes: ChangeBatcher = attrs.field(init=False)
    _skew: float = attrs.field(init=False, default=0.0)
    _ended_too_soon: int = attrs.field(init=False, default=0)
    _ownership: NodeOwnership = attrs.field(init=False)
    _memory: NodeMemory = attrs.field(init=False)
    _tls_mistake: str = attrs.field(init=False, default="")
    _count_at: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self.concurrency)
        self._conditions = ConditionTracker(self.cooldown)
        self._ownership = NodeOwnership(self.key, self.owner_interval)
        self._memory = NodeMemory(self.memory_probation)
        self._changes = ChangeBatcher(self._start, self._change)

    async def on_start(self) -> None:
        self.context.one_of("nodes", self.key, self.nodes.required)
        self.context.trouble("away", "not reached yet")
        self.context.start_task(self._watch_node, name="reach the node", inherit_deadline=False)

    @handler
    async def put_key(self, message: PutKey) -> Deferred[Applied]:
        deferred = self.context.defer(message)
        self._changes.add(message.spec, deferred)
        return deferred

    @handler
    async def remove_key(self, message: RemoveKey) -> Deferred[Removed]:
        deferred = self.context.defer(message)
        self._changes.add(Removal(message.key_id, message.generation), deferred)
        return deferred

    @handler
    async def read_state(self, message: ReadState) -> Deferred[NodeState]:
        return self._answer(message)

    @handler
    async def change_keys(self, message: ChangeKeys) -> Deferred[tuple[Applied | Removed | NodeError, ...]]:
        return self._answer(message)

    @handler
    async def restore_keys(self, message: RestoreKeys) -> Deferred[SyncOutcome]:
        return self._answer(message)

    @handler
    async def replace_keys(self, message: ReplaceKeys) -> Deferred[SyncOutcome]:
        return self._answer(message)

    @handler
    async def read_key(self, message: ReadKey) -> Deferred[NodeKey | None]:
        return self._answer(message)

    @handler
    async def list_keys(self, message: ListKeys) -> Deferred[KeyPage]:
        return self._answer(message)

    @handler
    async def read_usage(self, message: ReadUsage) -> Deferred[UsagePage]:
        return self._answer(message)

    @handler
    async def kick_key(self, message: KickKey) -> Deferred[Kicked]:
        return self._answer(message)

    def inspect(self) -> dict[str, object]:
        breaker = None if self._client is None else self._client.breaker
        return {
            "url": None if self._client is None else self._client.url,
            "breaker": None if breaker is None else breaker.state.value,
            "calls": self._limiter.borrowed_tokens,
            "changes_waiting": self._changes.waiting,
            "keys": None if self._state is None else self._state.count,
            "boot": None if self._state is None else self._state.boot_id,
            "conditions": self._conditions.inspect(trio.current_time()),
        }

    def _answer(self, message: Request[R]) -> Deferred[R]:
        deferred = self.context.defer(message)
        self.context.start_task(self._answer_with, message, deferred, name=type(message).__name__)
        return deferred

    async def _answer_with(self, message: Request[R], deferred: Deferred[R]) -> None:
        call = _CALLS[type(message)]
        try:
            answer = await self._call_node(
                lambda node: call(node, message), although_away=isinstance(message, ReadState)
            )
        except NodeError as error:
            deferred.fail(error)
        else:
            deferred.reply(answer)

    async def _change(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        return await self._call_node(lambda client: client.change(changes, self.node.within))

    async def _call_node(self, call: _NodeCall[R], *, although_away: bool = False) -> R:
        client = self._client
        if client is None:
            raise NodeUnavailable(self.key, "its agent has not been found yet")
        if self._away_since is not None and not although_away:
            away = trio.current_time() - self._away_since
            raise NodeUnavailable(self.key, f"not tried: it has been away for {away:.0f} s")
        async with self._limiter:
            self.context.failpoint("calling")
            refused, asked = self._ownership.nonce, self._memory.asks()
            try:
                answer = await call(client)
            except NodeNotOwner:
                if not await self._is_ours_after_all(client, refused):
                    raise
                answer = await call(client)
        self._memory.accepts(asked, answer)
        self.context.failpoint("called")
        return answer

    async def _is_ours_after_all(self, client: AgentClient, refused: str) -> bool:
        """Another supervisor of this database may have changed the nonce: read it anew."""
        try:
            return await self._ownership.again(client, pool_of(self.context, self.pool), refused)
        except LeaseError:
            return False

    def _start(self, fly: Callable[[], Awaitable[None]]) -> None:
        self.context.start_task(fly, name="change keys", inherit_deadline=False)

    async def _watch_node(self) -> None:
        settings = await self._locate()
        breaker = Breaker(trio.current_time, first_pause=self.first_pause, longest_pause=self.longest_pause)
        async with settings.client(self.key, breaker=breaker, concurrency=self.concurrency + 1) as client:
            self._client = client
            client.owner = lambda: self._ownership.nonce
            while True:
                await self._probe(client)
                await self._count_keys()
                await trio.sleep(self.probe_interval)

    async def _locate(self) -> NodeSettings:
        if self.node.url:
            return self.node
        agent = self.context.lookup(f"agent.{self.key}")
        while True:
            try:
                found = await agent.ask(Locate(), within=_LOCATE_SECONDS)
            except AskError as error:
                self.context.trouble("away", f"the embedded agent does not answer: {error}")
                await trio.sleep(_LOCATE_RETRY)
            else:
                return attrs.evolve(self.node, url=found.url, token=found.token)

    async def _probe(self, client: AgentClient) -> None:
        self._memory.looks()
        try:
            with trio.fail_after(self.probe_patience):
                state = await client.state()
        except trio.TooSlowError:
            self._mark_away(f"it does not answer within {self.probe_patience:g} s")
            return
        except NodeError as error:
            if not isinstance(error, BreakerOpen):  # not tried: the trouble before it lasts
                self._note_tls(error.text if isinstance(error, NodeTlsFailed) else "")
            self._mark_away(str(error))
            return
        self._note_tls("")
        if forgotten := self._memory.sees(state, trio.current_time()):
            FORGOTTEN.labels(self.key).inc(forgotten)
            self.context.emit(NodeForgot(actor=self.context.name, changes=forgotten))
        times, self._looked_at = xray_ended(self.key, self._looked_at, state), state
        if times:
            self.context.emit(NodeXrayEnded(actor=self.context.name, times=times, why=state.xray_last_end))
        if not state.ready:
            self._tell([Condition(f"xray of {self.context.name}", trouble_of_xray(state))])
            self._mark_away(f"its Xray is not ready: {state.why}")
            return
        # a node whose backend cannot reach its database keeps customers past their end: they may have paid
        client.can_extend = await self._record(client, state)
        if client.can_extend:
            self._mark_reachable(state)

    async def _record(self, client: AgentClient, state: NodeState) -> bool:
        """Keep the database's facts; False if the database is away, so that the next probe tries again."""
        pool = pool_of(self.context, self.pool)
        known, answered = self._state, trio.current_time()
        try:
            if known is None or known.inbounds != state.inbounds:
                await pool.run("node.register", _register, self.key, state)
            seen = await pool.run("node.seen", record_node_seen, self.key, state.boot_id)
            client.time = partial(_carried_on, seen.real_time, trio.current_time())
            # what passed in between, waiting for a connection, is not the node's
            passed = trio.current_time() - answered
            self._skew = (state.now - seen.now).total_seconds() + passed
            takes_changes_again = known is not None and known.why and not state.why
            has_forgotten = self._memory.take_wake(trio.current_time())
            is_back = seen.is_new_boot or known is None or self._away_since is not None
            if is_back or takes_changes_again or has_forgotten:
                await pool.run("node.due", make_keys_due, self.key)
                self._wakes_are_due = True
            self._ended_too_soon = await self._count_ended_too_soon(client, state)
            changes_back = await self._ownership.rule(client, state, pool)
            if changes_back:
                self.context.emit(NodeRestored(actor=self.context.name, changes_back=changes_back))
                await pool.run("node.due", make_keys_due, self.key)
                self._wakes_are_due = True  # reconcile compares the whole of it
        except NodeError as error:
            self._mark_away(str(error))
            return False
        except LeaseError as error:
            self.context.trouble("database", f"reached, but the database is away: {error}")
            return False
        except Exception as error:
            if sqlstate(error) is None:
                raise
            # the server refuses it: whatever the node said, it must not end this actor, and with it the service
            self._mark_away(f"the database does not take what it says of itself: {readable(str(error))}")
            return False
        return True

    async def _count_ended_too_soon(self, client: AgentClient, state: NodeState) -> int:
        """How many customers the node refuses although it has confirmed that their time is not over."""
        found = 0
        after: str | None = "" if state.expired and state.can(CAN_LIST_EXPIRED) else None
        while after is not None:
            page = await client.list_expired(after)
            ids = [key.spec.key_id for key in page.keys]
            found += await pool_of(self.context, self.pool).run(
                "node.ended_too_soon", count_ended_too_soon, self.key, ids, self.clock_tolerance
            )
            after = page.next
        return found

    def _mark_reachable(self, state: NodeState) -> None:
        first = self._state is None
        self._state = state
        self._note_conditions(state)
        self.context.describe(
            xray=state.xray_version, boot=state.boot_id, keys=str(state.count), customers=_customers(state.inbound)
        )
        if self._wakes_are_due:
            self._wakes_are_due = False
            for worker in self.wakes:
                self.context.lookup(worker).tell(WakeUp())
        if first or self._away_since is not None:
            away = None if self._away_since is None else trio.current_time() - self._away_since
            self._away_since = None
            self.context.emit(NodeBack(actor=self.context.name, keys=state.count, away=away))

    def _note_conditions(self, state: NodeState) -> None:
        trouble = NodeTrouble.of(
            state, self._skew, self._ended_too_soon, self.clock_tolerance, self._ownership, self._memory.trouble
        )
        trouble.measure(self.key)
        self._tell(trouble.conditions(self.context.name))
        for kind in ("away", "database"):
            self.context.trouble(kind, "")
        for kind, why, blocks in trouble.reasons():
            self.context.trouble(kind, why, blocks=blocks)

    def _note_tls(self, mistake: str) -> None:
        subject = f"tls of {self.context.name}"
        # who has mended one mistake and made another is told at once: the first is over, the second begins
        ends = [Condition(subject, "")] if mistake != self._tls_mistake else []
        self._tls_mistake = mistake
        for condition in (*ends, Condition(subject, mistake)):
            self._tell([condition])

    def _tell(self, conditions: Sequence[Condition]) -> None:
        for alert in self._conditions.update(conditions, trio.current_time()):
            self.context.emit(alert.event(self.context.name))

    async def _count_keys(self) -> None:
        """Say how many keys are wrong on this node, whether it can be reached or not: at each look while any is."""
        if trio.current_time() < self._count_at:
            return
        try:
            counted = await pool_of(self.context, self.pool).run("node.keys", wrong_keys, self.key)
        except LeaseError:
            return  # the pool says so itself
        for found in counted:  # one, or none before the node was ever reached
            for kind in ("missing", "late", "ended"):
                WRONG_KEYS.labels(self.key, kind).set(getattr(found, kind))
            # one key that is refused must not make a service unready that serves all others
            self.context.trouble("keys", f"of its keys {found}" if found.wrong else "", blocks=False)
            self._count_at = trio.current_time() + (0.0 if found.wrong else self.count_interval)

    def _mark_away(self, why: str) -> None:
        self.context.trouble("away", why)
        if self._away_since is None:
            self._away_since = trio.current_time()
            self.context.emit(NodeAway(actor=self.context.name, why=why))


async def _register(tx: Tx, name: str, state: NodeState) -> None:
    inbound = state.inbound
    await register_node(
        tx,
        name,
        attrs.asdict(inbound),
        inbounds=[inbound.tag for inbound in state.inbounds],
        flow=inbound.flow,
    )


def _carried_on(real_time: float, read_at: float) -> float:
    return real_time + trio.current_time() - read_at


def _customers(inbound: InboundFacts) -> str:
    return f"{inbound.host}:{inbound.port} ({inbound.security})"
