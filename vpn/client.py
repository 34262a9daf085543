"""`VpnNode` over the agent's HTTP interface."""

from __future__ import annotations

import contextlib
import json
import random
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

import attrs
import httpx
import trio

from runtime.config.secret import Secret
from vpn import wire
from vpn.breaker import Breaker, BreakerState
from vpn.errors import (
    BreakerOpen,
    NodeAmbiguous,
    NodeConflict,
    NodeError,
    NodeProtocolError,
    NodeRefused,
    NodeUnauthorized,
    NodeUnavailable,
    NodeUnreachable,
)
from vpn.http import Timeouts, new_client
from vpn.protocol import (
    IDEMPOTENT,
    Applied,
    KeyPage,
    KeySpec,
    Kicked,
    NodeKey,
    NodeState,
    Removed,
    SyncOutcome,
    Usage,
)

T = TypeVar("T")

_LINES_AT_ONCE: Final = 500
_SYNC_SECONDS: Final = 120.0
_READ_BACK_SECONDS: Final = 2.0


@attrs.define(eq=False)
class AgentClient:
    """A node's agent, seen from the backend. Use it as an async context manager, or `aclose()` it.

    A call takes at most `within` seconds (default 10; a sync 120), repeats included. Operations in
    `vpn.protocol.IDEMPOTENT` are repeated up to `repeats` times (2) after a lost connection or answer, with a jittered
    pause from `pause` seconds (0.1) doubling; `kick` never. A put whose answer stayed away is read back for at most
    two seconds more before NodeAmbiguous is raised. The breaker, if given, counts lost calls and answers from 500 on,
    and refuses with BreakerOpen; a call that was tried raises its own failure also if that opened the breaker. All
    errors are `vpn.errors.NodeError`s; a call under a database lease raises LeaseHeldAcrossCall. Raises NodeRefused
    at once for a `url` that is not http or https.
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
    _last_failure: str = attrs.field(init=False, default="", repr=False)
    _http: httpx.AsyncClient = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not _is_address(self.url):
            raise NodeRefused(self.name, f"its url {self.url!r} is not http://HOST:PORT or https://HOST:PORT", "url")
        self._http = new_client(
            self.url,
            headers={"authorization": f"Bearer {self.token.reveal()}"},
            timeouts=self.timeouts,
            verify=self.verify,
        )

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def put(self, spec: KeySpec) -> Applied:
        """See VpnNode.put."""
        path = _key_path(spec.key_id)
        try:
            answer = await self._call("put", "PUT", path, content=json.dumps(wire.spec_to_json(spec)).encode())
        except NodeAmbiguous:
            found = await self._read_back(spec.key_id)
            if found is None or not _covers(found, spec):
                raise
            return Applied(spec.key_id, found.spec.generation, True, found.state, found.spec.expires_at)
        return self._read(wire.applied_from_json, answer)

    async def remove(self, key_id: str, generation: int) -> Removed:
        """See VpnNode.remove."""
        path = f"{_key_path(key_id)}?generation={generation}"
        # not answered from a read-back: absence does not show that the node will refuse a late put
        return self._read(wire.removed_from_json, await self._call("remove", "DELETE", path))

    async def get(self, key_id: str) -> NodeKey | None:
        """See VpnNode.get."""
        return await self._get(key_id)

    async def _get(self, key_id: str, within: float | None = None) -> NodeKey | None:
        try:
            answer = await self._call("get", "GET", _key_path(key_id), within=within)
        except NodeRefused as error:
            if error.code == "unknown_key":
                return None
            raise
        return self._read(wire.key_from_json, answer)

    async def list(self, after: str = "", limit: int = 1000) -> KeyPage:
        """See VpnNode.list."""
        path = f"/v1/users?after={quote(after)}&limit={limit}"
        return self._read(wire.page_from_json, await self._call("list", "GET", path))

    async def list_all(self, page_size: int = 2000) -> AsyncIterator[NodeKey]:
        """All wanted keys in order of key id, a page at a time. A failing page raises: never a short list."""
        after: str | None = ""
        while after is not None:
            page = await self.list(after, page_size)
            for key in page.keys:
                yield key
            after = page.next

    async def state(self) -> NodeState:
        """See VpnNode.state."""
        return self._read(wire.state_from_json, await self._call("state", "GET", "/v1/state"))

    async def sync(
        self, specs: Iterable[KeySpec] | AsyncIterable[KeySpec], unchanged_since: int | None = None
    ) -> SyncOutcome:
        """See VpnNode.sync. `unchanged_since`, a `NodeState.sequence` read before the wanted keys were, keeps keys that
        were changed after it from being dropped; without it, keys changed before the request are."""
        path = "/v1/sync" if unchanged_since is None else f"/v1/sync?unchanged_since={unchanged_since}"
        body = b"".join([line async for line in _lines(specs)])
        answer = await self._call("sync", "POST", path, content=body, within=_SYNC_SECONDS)
        return self._read(wire.sync_from_json, answer)

    async def kick(self, key_id: str) -> Kicked:
        """See VpnNode.kick."""
        return self._read(wire.kicked_from_json, await self._call("kick", "POST", f"{_key_path(key_id)}/kick"))

    async def usage(self, after: str = "", limit: int = 1000) -> Usage:
        """See VpnNode.usage."""
        path = f"/v1/usage?after={quote(after)}&limit={limit}"
        return self._read(wire.usage_from_json, await self._call("usage", "GET", path))

    async def move_clock(self, offset_seconds: float) -> None:
        """Move the node's clock to this distance from real time, where it allows that (demonstrations and tests)."""
        await self._call("state", "PUT", "/v1/clock", content=json.dumps({"offset_seconds": offset_seconds}).encode())

    async def _read_back(self, key_id: str) -> NodeKey | None:
        try:
            return await self._get(key_id, _READ_BACK_SECONDS)
        except NodeError:
            return None

    async def _call(
        self, operation: str, method: str, path: str, *, content: bytes | None = None, within: float | None = None
    ) -> object:
        limit = within or self.within
        tries = 1 + (self.repeats if operation in IDEMPOTENT else 0)
        deadline = trio.current_time() + limit
        pause = self.pause
        lost: NodeError | None = None
        for attempt in range(1, tries + 1):
            try:
                return await self._once(method, path, content, deadline, limit)
            except (NodeUnreachable, NodeAmbiguous) as error:
                pause_now = pause * (0.5 + random.random())  # noqa: S311  # scatters retries, protects nothing
                if attempt == tries or trio.current_time() + pause_now >= deadline or self._is_open():
                    raise
                lost = error
                await trio.sleep(pause_now)
                pause *= 2
            except BreakerOpen:
                # somebody else's failures opened it meanwhile: this call was tried, and must not say that it was not
                if lost is not None:
                    raise lost from None
                raise
        raise AssertionError("unreachable")

    async def _once(self, method: str, path: str, content: bytes | None, deadline: float, limit: float) -> object:
        self._admit()
        try:
            answer = await self._send(method, path, content, deadline, limit)
        except (NodeUnreachable, NodeAmbiguous, NodeUnavailable) as error:
            self._last_failure = error.text
            if self.breaker is not None:
                self.breaker.failure()
            raise
        except NodeError:
            if self.breaker is not None:
                self.breaker.success()
            raise
        except BaseException:
            if self.breaker is not None:
                self.breaker.abandon()
            raise
        if self.breaker is not None:
            self.breaker.success()
        return answer

    def _is_open(self) -> bool:
        return self.breaker is not None and self.breaker.state is BreakerState.OPEN

    def _admit(self) -> None:
        if self.breaker is not None and not self.breaker.allow():
            since = self.breaker.clock() - self.breaker.opened_at
            raise BreakerOpen(
                self.name,
                f"not tried: {self.breaker.failures} calls in a row failed, the first pause began {since:.0f} s ago, next try in "
                f"{self.breaker.retry_in:.1f} s; the last one: {self._last_failure}",
                self.breaker.retry_in,
            )

    async def _send(self, method: str, path: str, content: bytes | None, deadline: float, limit: float) -> object:
        headers = {"content-type": "application/json"} if content is not None else {}
        timeouts = attrs.evolve(self.timeouts, read=limit, write=limit)
        try:
            with trio.fail_at(deadline):
                response = await self._http.request(
                    method, path, content=content, headers=headers, timeout=timeouts.to_httpx()
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NodeUnreachable(
                self.name,
                f"no connection to {self.url} ({str(error) or type(error).__name__}); is `atlas node run` up there?",
            ) from error
        except (httpx.TransportError, trio.TooSlowError) as error:
            raise NodeAmbiguous(
                self.name,
                f"{method} {path.partition('?')[0]} was sent, but no answer came within {limit:g} s "
                f"({type(error).__name__}): it may or may not have been done",
            ) from error
        return self._answer(response)

    def _answer(self, response: httpx.Response) -> object:
        data: object = None
        with contextlib.suppress(ValueError):
            data = response.json()
        if response.is_success and isinstance(data, dict):
            return data
        error = data.get("error") if isinstance(data, dict) else None
        if not isinstance(error, dict):
            raise NodeProtocolError(
                self.name,
                f"HTTP {response.status_code} from {self.url} is not an answer of a node agent; check the address",
            )
        raise self._error(response.status_code, error)

    def _error(self, status: int, error: Mapping[str, object]) -> NodeError:
        code, message = str(error.get("code", "")), str(error.get("message", ""))
        if status == 401:
            return NodeUnauthorized(self.name, f"{message}; correct this node's token", code, status)
        if status == 409:
            generation = error.get("generation")
            return NodeConflict(self.name, message, generation if isinstance(generation, int) else -1)
        if status >= 500:
            return NodeUnavailable(self.name, message)
        return NodeRefused(self.name, message, code, status)

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
