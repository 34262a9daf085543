"""`VpnNode` over the agent's HTTP interface."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

import attrs
import httpx
import trio

from runtime.config import Secret
from runtime.http import Timeouts, new_client
from vpn.errors import (
    BreakerOpen,
    NodeAmbiguous,
    NodeCannotList,
    NodeConflict,
    NodeError,
    NodeProtocolError,
    NodeRefused,
    NodeTooLarge,
    NodeUnknownKey,
    NodeUnreachable,
)
from vpn.node import wire
from vpn.node.breaker import Breaker
from vpn.node.caller import AgentCaller
from vpn.protocol import (
    CAN_EXTEND_HEADER,
    MAX_BATCH,
    OWNER_HEADER,
    TIME_HEADER,
    Applied,
    KeyPage,
    KeySpec,
    Kicked,
    NodeKey,
    NodeState,
    Removal,
    Removed,
    SyncOutcome,
    UsagePage,
)

T = TypeVar("T")

_LINES_AT_ONCE: Final = 500
_BATCH_SECONDS: Final = 60.0
_SYNC_SECONDS: Final = 120.0
_NO_SUCH_ROUTE: Final = (404, 405)
_READ_BACK_SECONDS: Final = 2.0


@attrs.define(eq=False)
class AgentClient:
    """A node's agent, seen from the backend. Use it as an async context manager, or `aclose()` it.

    A call takes at most `within` seconds (default 10; a batch 60, a sync 120), waiting and repeats included. At most
    `concurrency` calls (16) are on their way at once, the others wait. Operations in `vpn.protocol.IDEMPOTENT` are
    repeated up to `repeats` times (2) after a lost connection or answer, with a jittered pause from `pause` seconds
    (0.1) doubling; `kick` never. A put or removal whose answer stayed away is read back for at most two seconds more
    before NodeAmbiguous is raised. The breaker, if given, counts lost calls and answers from 500 on but 507, and
    refuses with BreakerOpen; a call that was tried raises its own failure also if that opened the breaker. All errors
    are `vpn.errors.NodeError`s; a call under a database lease raises LeaseHeldAcrossCall. Raises NodeRefused at once
    for a `url` that is not http or https.

    While `can_extend` is set, every request says that it comes from a backend which can extend keys now. A node that
    gets no such request for a while lets keys live longer (`vpn.agent.state.expiry`): a client that only looks, or has
    no database, must not set it. `time` then gives the database's real time in Unix seconds, which is said with every request:
    the node goes by it. `owner` gives the nonce that the node's owner gave it last: without it the node of an owner takes no
    changes (NodeNotOwner).
    """

    name: str
    url: str
    token: Secret
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    within: float = 10.0
    repeats: int = 2
    pause: float = 0.1
    breaker: Breaker | None = None
    verify: ssl.SSLContext | bool = attrs.field(default=True, repr=False)
    concurrency: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    can_extend: bool = False
    time: Callable[[], float] | None = attrs.field(default=None, repr=False)
    owner: Callable[[], str] | None = attrs.field(default=None, repr=False)
    _caller: AgentCaller = attrs.field(init=False, repr=False)
    _http: httpx.AsyncClient = attrs.field(init=False, repr=False)
    _most: int = attrs.field(init=False, default=MAX_BATCH)

    def __attrs_post_init__(self) -> None:
        if not _is_address(self.url):
            raise NodeRefused(self.name, f"its url {self.url!r} is not http://HOST:PORT or https://HOST:PORT", "url")
        self._http = new_client(
            self.url,
            headers={"authorization": f"Bearer {self.token.reveal()}", "accept-encoding": "identity"},
            timeouts=self.timeouts,
            max_connections=self.concurrency,
            verify=self.verify,
        )
        self._http.event_hooks = {"request": [self._say_who_asks]}
        self._caller = AgentCaller(
            name=self.name,
            url=self.url,
            http=self._http,
            timeouts=self.timeouts,
            within=self.within,
            repeats=self.repeats,
            pause=self.pause,
            breaker=self.breaker,
            concurrency=self.concurrency,
        )

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Calls on their way fail."""
        await self._http.aclose()

    async def _say_who_asks(self, request: httpx.Request) -> None:
        if self.owner is not None:
            request.headers[OWNER_HEADER] = self.owner()
        if self.can_extend:
            request.headers[CAN_EXTEND_HEADER] = "1"
            if self.time is not None:
                request.headers[TIME_HEADER] = f"{self.time():.3f}"

    async def put(self, spec: KeySpec) -> Applied:
        """See VpnNode.put. Idempotent."""
        path = _key_path(spec.key_id)
        try:
            answer = await self._caller.call("put", "PUT", path, content=json.dumps(wire.spec_to_json(spec)).encode())
        except NodeAmbiguous:
            found = await self._read_back(spec.key_id)
            if isinstance(found, NodeError) or not _covers(found, spec):
                raise
            return Applied(
                spec.key_id, found.spec.generation, True, found.state, found.spec.expires_at, is_read_back=True
            )
        return self._applied(self._read(wire.applied_from_json, answer), spec)

    async def remove(self, key_id: str, generation: int) -> Removed:
        """See VpnNode.remove. Idempotent. If only reading back showed that it was done, `existed` is true and `cut` 0."""
        path = f"{_key_path(key_id)}?generation={generation}"
        try:
            answer = await self._caller.call("remove", "DELETE", path)
        except NodeAmbiguous:
            # absence alone would not show that the node will refuse a late put: its memory of the removal does
            found = await self._read_back(key_id)
            if not isinstance(found, NodeUnknownKey) or found.removed < generation or found.pending:
                raise
            return Removed(key_id, True, 0, is_read_back=True)
        return self._read(wire.removed_from_json, answer)

    async def batch(
        self, changes: Sequence[KeySpec | Removal], within: float | None = None
    ) -> tuple[Applied | Removed | NodeError, ...]:
        """See VpnNode.batch. Idempotent. A node that takes no batches gets the changes one by one, one behind a proxy that
        takes no large bodies (413) smaller batches."""
        if len(changes) > MAX_BATCH:
            raise ValueError(f"a batch of {len(changes)} changes is refused: at most {MAX_BATCH}")
        if len({change.key_id for change in changes}) < len(changes):
            raise ValueError("a batch with two changes of one key is refused")
        if len(changes) > self._most:
            return await self._in_parts(changes, within)
        content = json.dumps({"changes": [wire.change_to_json(change) for change in changes]}).encode()
        try:
            answer = await self._caller.call(
                "batch", "POST", "/v1/batch", content=content, within=within or _BATCH_SECONDS
            )
        except NodeTooLarge:
            if len(changes) == 1:
                raise
            self._most = len(changes) // 2
            return await self._in_parts(changes, within)
        except NodeRefused as error:
            if error.status not in _NO_SUCH_ROUTE:
                raise
            return await self._one_by_one(changes)
        outcomes = self._read(lambda data: wire.outcomes_from_json(data, len(changes), self._caller.error_of), answer)
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Applied) and isinstance(change, KeySpec):
                self._applied(outcome, change)
            elif not isinstance(outcome, NodeError) and outcome.key_id != change.key_id:
                raise self._other_key(change.key_id)
        return tuple(outcomes)

    async def _in_parts(
        self, changes: Sequence[KeySpec | Removal], within: float | None
    ) -> tuple[Applied | Removed | NodeError, ...]:
        """As batches that fit. If one fails, the outcomes of those before it are known all the same."""
        outcomes: list[Applied | Removed | NodeError] = []
        while rest := changes[len(outcomes) :]:
            part = rest[: self._most]
            try:
                outcomes += await self.batch(part, within)
            except NodeError as error:
                if not outcomes:
                    raise
                outcomes += [error] * len(part)
        return tuple(outcomes)

    async def _one_by_one(self, changes: Sequence[KeySpec | Removal]) -> tuple[Applied | Removed | NodeError, ...]:
        outcomes: list[Applied | Removed | NodeError] = []
        for change in changes:
            try:
                outcomes.append(await self._one(change))
            except NodeError as error:
                outcomes.append(error)
        return tuple(outcomes)

    async def _one(self, change: KeySpec | Removal) -> Applied | Removed:
        if isinstance(change, KeySpec):
            return await self.put(change)
        return await self.remove(change.key_id, change.generation)

    async def change(
        self, changes: Sequence[KeySpec | Removal], within: float | None = None
    ) -> Sequence[Applied | Removed | NodeError]:
        """Make changes, and find out where that is in doubt: one as a request of its own, more as one `batch`.

        If what became of the batch is not known, each change is sent again by itself, which finds out; one that cannot be sent
        now stays NodeAmbiguous. Idempotent. Returns the outcome of each, in order. Raises NodeError if nothing is known of any.
        """
        if len(changes) == 1:
            return [await self._one(changes[0])]
        try:
            return await self.batch(changes, within)
        except NodeAmbiguous as error:
            return await self._each(changes, error)

    async def _each(
        self, changes: Sequence[KeySpec | Removal], doubt: NodeAmbiguous
    ) -> Sequence[Applied | Removed | NodeError]:
        outcomes: list[Applied | Removed | NodeError] = [doubt] * len(changes)

        async def settle(index: int) -> None:
            try:
                outcomes[index] = await self._one(changes[index])
            except (NodeUnreachable, BreakerOpen):
                pass  # not sent this time, but perhaps done the first time: it stays in doubt
            except NodeError as error:
                outcomes[index] = error

        async with trio.open_nursery() as nursery:
            for index in range(len(changes)):
                nursery.start_soon(settle, index)
        return outcomes

    async def get(self, key_id: str) -> NodeKey | None:
        """See VpnNode.get. Idempotent."""
        try:
            return await self._get(key_id)
        except NodeUnknownKey:
            return None

    async def _get(self, key_id: str, within: float | None = None) -> NodeKey:
        answer = await self._caller.call("get", "GET", _key_path(key_id), within=within)
        return self._read(wire.key_from_json, answer)

    async def list(self, after: str = "", limit: int = 1000) -> KeyPage:
        """See VpnNode.list. Idempotent. Raises NodeCannotList for a node without a list, and NodeProtocolError for a page
        that does not follow `after` in order: a list that lies is no list."""
        return await self._page(f"/v1/users?after={quote(after)}&limit={limit}", after)

    async def list_expired(self, after: str = "", limit: int = 1000) -> KeyPage:
        """See VpnNode.list_expired. Idempotent."""
        return await self._page(f"/v1/users?state=expired&after={quote(after)}&limit={limit}", after)

    async def _page(self, path: str, after: str) -> KeyPage:
        try:
            answer = await self._caller.call("list", "GET", path)
        except NodeRefused as error:
            if error.status not in _NO_SUCH_ROUTE:
                raise
            raise NodeCannotList(self.name, f"it has no list of its keys ({error.text})", error.status) from error
        page = self._read(wire.page_from_json, answer)
        names = [after, *(key.spec.key_id for key in page.keys)]
        if any(one >= other for one, other in pairwise(names)) or (page.next is not None and page.next != names[-1]):
            raise NodeProtocolError(
                self.name, f"its list of keys after {after!r} is not in order; it cannot be relied on"
            )
        if page.next is not None and not page.keys:
            raise NodeProtocolError(self.name, f"its list of keys after {after!r} goes on without keys")
        return page

    async def list_all(self, page_size: int = 2000) -> AsyncIterator[NodeKey]:
        """All wanted keys in order of key id, a page at a time. A failing page raises: never a short list. Idempotent."""
        after: str | None = ""
        while after is not None:
            page = await self.list(after, page_size)
            for key in page.keys:
                yield key
            after = page.next

    async def state(self) -> NodeState:
        """See VpnNode.state. Idempotent."""
        return self._read(wire.state_from_json, await self._caller.call("state", "GET", "/v1/state"))

    async def sync(
        self, specs: Iterable[KeySpec] | AsyncIterable[KeySpec], unchanged_since: int | None = None
    ) -> SyncOutcome:
        """See VpnNode.sync. Idempotent. `unchanged_since`, a `NodeState.sequence` read before the wanted keys were, keeps
        keys that were changed after it from being dropped; without it, keys changed before the request are."""
        path = "/v1/sync" if unchanged_since is None else f"/v1/sync?unchanged_since={unchanged_since}"
        lines = [line async for line in _lines(specs)]
        try:
            answer = await self._caller.call("sync", "POST", path, content=b"".join(lines), within=_SYNC_SECONDS)
        except NodeTooLarge:
            if unchanged_since != 0:
                raise  # what is not in it is dropped: only the whole of it says so
            return await self._put_all([wire.spec_from_json(json.loads(line)) for line in lines])
        return self._read(wire.sync_from_json, answer)

    async def _put_all(self, specs: Sequence[KeySpec]) -> SyncOutcome:
        """What a sync that drops nothing does, in batches."""
        added = unchanged = 0
        refused = []
        for start in range(0, len(specs), MAX_BATCH):
            part = specs[start : start + MAX_BATCH]
            for spec, outcome in zip(part, await self.batch(part), strict=True):
                if isinstance(outcome, NodeRefused):
                    refused.append((spec.key_id, outcome.text))
                elif isinstance(outcome, NodeError) and not isinstance(outcome, NodeConflict):
                    raise outcome
                elif isinstance(outcome, Applied) and outcome.created:
                    added += 1
                else:
                    unchanged += 1
        return SyncOutcome(added, 0, 0, unchanged, tuple(refused))

    async def kick(self, key_id: str) -> Kicked:
        """See VpnNode.kick. Not idempotent: sent once, and NodeAmbiguous if its answer stayed away."""
        return self._read(wire.kicked_from_json, await self._caller.call("kick", "POST", f"{_key_path(key_id)}/kick"))

    async def usage(self, since: str = "", *, after: str = "", limit: int = 1000) -> UsagePage:
        """See VpnNode.usage. Idempotent."""
        path = f"/v1/usage?since={quote(since)}&after={quote(after)}&limit={limit}"
        return self._read(wire.usage_from_json, await self._caller.call("usage", "GET", path))

    async def move_clock(self, offset_seconds: float) -> None:
        """Move the node's clock to this distance from real time, where it allows that (demonstrations and tests).
        Idempotent."""
        await self._caller.call(
            "state", "PUT", "/v1/clock", content=json.dumps({"offset_seconds": offset_seconds}).encode()
        )

    async def claim(self, database_id: str, previous: str, nonce: str, *, take: bool = False, code: str = "") -> None:
        """Rule the node from now on, by this nonce: for who knows the `previous` one, first comes, has the one-time `code` of
        `atlas node disown`, or means to `take` it. Idempotent. Raises NodeNotOwner if the node does not agree.
        """
        body = {"database_id": database_id, "previous": previous, "nonce": nonce, "take": take, "code": code}
        await self._caller.call("claim", "POST", "/v1/owner", content=json.dumps(body).encode())

    async def usage_all(self, since: str = "", page_size: int = 5000) -> UsagePage:
        """All counters at once, or those that moved after the mark `since`; pass its `mark` next time. If Xray was started
        anew between the pages, it is read from the beginning. Idempotent."""
        while True:
            first = page = await self.usage(since, limit=page_size)
            users = list(page.users)
            while page.next is not None:
                page = await self.usage(since, after=page.next, limit=page_size)
                if page.boot_id != first.boot_id:
                    break
                users += page.users
            else:
                return attrs.evolve(first, users=tuple(users), next=None)

    async def _read_back(self, key_id: str) -> NodeKey | NodeError:
        try:
            return await self._get(key_id, _READ_BACK_SECONDS)
        except NodeError as error:
            return error

    def _applied(self, applied: Applied, spec: KeySpec) -> Applied:
        if applied.key_id != spec.key_id or applied.generation < spec.generation:
            raise self._other_key(spec.key_id)
        return applied

    def _other_key(self, key_id: str) -> NodeProtocolError:
        return NodeProtocolError(
            self.name, f"{self.url} was asked about key {key_id} and answered about another change"
        )

    def _read(self, reader: Callable[[object], T], answer: object) -> T:
        try:
            return reader(answer)
        except ValueError as error:
            raise NodeProtocolError(
                self.name, f"an answer of {self.url} cannot be read: {error}; are the versions compatible?"
            ) from error


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key_path(key_id: str) -> str:
    return f"/v1/users/{quote(key_id, safe='')}"


def _covers(found: NodeKey, spec: KeySpec) -> bool:
    """Whether what the node holds is what the put wanted."""
    held = found.spec
    same = (held.generation, held.uuid, held.flow, held.inbounds) == (
        spec.generation,
        spec.uuid,
        spec.flow,
        spec.inbounds,
    )
    long_enough = held.expires_at is None or (spec.expires_at is not None and held.expires_at >= spec.expires_at)
    return same and long_enough and found.state.value != "pending"


async def _lines(specs: Iterable[KeySpec] | AsyncIterable[KeySpec]) -> AsyncIterator[bytes]:
    if isinstance(specs, AsyncIterable):
        async for spec in specs:
            yield json.dumps(wire.spec_to_json(spec)).encode() + b"\n"
        return
    for number, spec in enumerate(specs, start=1):
        yield json.dumps(wire.spec_to_json(spec)).encode() + b"\n"
        if number % _LINES_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
