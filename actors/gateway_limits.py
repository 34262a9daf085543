"""What a stranger may cost: bytes, seconds, requests at a time and requests a second. A plain ASGI layer around an app."""

from __future__ import annotations

import ipaddress
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import attrs
import trio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.errors import Killed
from runtime.metrics import counter

Address = IPv4Address | IPv6Address
_NOWHERE = ipaddress.ip_address("0.0.0.0")  # noqa: S104 - nobody's address, not one to listen on
_SOURCE = "atlas.source"
_SITE_BITS = 64
_PROXIES_AT_MOST = 8

REQUESTS = counter("atlas_gateway_requests_total", "Requests to the gateway by status.", labels=("status",))
LIMITED = counter("atlas_gateway_limited_total", "Requests refused before they were read, by limit.", labels=("limit",))


@attrs.frozen
class Limits:
    """What one request, one source and all of them together may use."""

    head: int
    """Bytes of names and values in a head."""
    body: int
    """Bytes of a body."""
    seconds: float
    """For a request, from its first line to its answer."""
    at_once: int
    """Requests in progress, of all sources."""
    rate: float
    """Requests a second that one source may send for ever (an IPv4 address, or a /64 of IPv6)."""
    burst: int
    """Requests that one source may send at once."""
    sources: int = 10_000
    """Sources that are remembered; beyond that the one not seen for longest is forgotten."""


class Buckets:
    """A token bucket for each source."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: OrderedDict[Address | IPv6Network, tuple[float, float]] = OrderedDict()

    def take(self, source: Address, now: float) -> float:
        """Seconds until this source may send a request; 0.0: now, and it is counted."""
        limits, key = self._limits, site_of(source)
        tokens, then = self._buckets.pop(key, (float(limits.burst), now))
        tokens = min(limits.burst, tokens + max(now - then, 0.0) * limits.rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / limits.rate
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > limits.sources:
            self._buckets.popitem(last=False)
        return wait


class LimitedApp:
    """An ASGI app that answers 408, 413, 429, 431 and 503 by itself and refuses WebSockets, and lets nothing out but answers.

    `refusal(path, status, why, headers)` makes these answers. `crashed(text)` is told of an exception that the app let out;
    its client gets a 500. `killed` gets what a failpoint raised: then nobody is answered, as after a real crash.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        trusted: Sequence[IPv4Network | IPv6Network],
        *,
        refusal: Callable[[str, int, str, Mapping[str, str]], Response],
        crashed: Callable[[str], None],
        killed: Callable[[Killed], Awaitable[None]],
    ) -> None:
        self._app = app
        self._limits = limits
        self._trusted = trusted
        self._refusal = refusal
        self._crashed = crashed
        self._killed = killed
        self._buckets = Buckets(limits)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        source = _find_source(scope, self._trusted)
        wait = self._buckets.take(source, trio.current_time())
        size = len(scope["raw_path"]) + sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._limits.head:
            await self._refuse("head", 431, scope, receive, send, {"connection": "close"})
        elif wait:
            await self._refuse("rate", 429, scope, receive, send, {"retry-after": str(int(wait) + 1)})
        elif self._running >= self._limits.at_once:
            await self._refuse("at_once", 503, scope, receive, send, {"retry-after": "1"})
        else:
            self._running += 1
            try:
                await self._serve({**scope, _SOURCE: source}, receive, send)
            finally:
                self._running -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send)
        body: bytes | None = None
        with trio.move_on_after(self._limits.seconds) as patience:
            try:
                body = await self._body(scope, receive)
            except _TooLarge:
                await self._refuse("body", 413, scope, receive, send, {"connection": "close"})
                return
            except _Gone:
                return
            try:
                await self._app(scope, _replay(body), answer)
            except Killed as killed:
                await self._killed(killed)
            except Exception as error:  # noqa: BLE001 - one request's defect ends that request
                self._crashed("".join(traceback.format_exception_only(error)).strip())
                if not answer.began:
                    await self._say(500, "our mistake; it was noted", scope, receive, answer, {})
        if patience.cancelled_caught and not answer.began:
            status = 408 if body is None else 503
            await self._refuse("seconds", status, scope, receive, send, {"connection": "close", "retry-after": "10"})
        else:
            REQUESTS.labels(str(answer.status)).inc()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            # A length is announced before anything is read: h11 has checked that it is a number.
            if name == b"content-length" and int(value) > self._limits.body:
                raise _TooLarge
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.body:
                raise _TooLarge
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _refuse(
        self, limit: str, status: int, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]
    ) -> None:
        LIMITED.labels(limit).inc()
        REQUESTS.labels(str(status)).inc()
        await self._say(status, f"a limit of the gateway: {limit}", scope, receive, send, headers)

    async def _say(
        self, status: int, why: str, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        await self._refusal(scope["path"], status, why, headers)(scope, receive, send)


def source_of(scope: Scope) -> Address:
    """Who sent the request that `LimitedApp` passed on."""
    source = scope.get(_SOURCE, _NOWHERE)
    assert isinstance(source, IPv4Address | IPv6Address)
    return source


def _find_source(scope: Scope, trusted: Sequence[IPv4Network | IPv6Network]) -> Address:
    """The peer; or, if that is a proxy of ours, the last address in X-Forwarded-For that is none."""
    client = scope.get("client")
    source = read_address(client[0]) if client else None
    if source is None:
        return _NOWHERE
    hops = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    for hop in reversed(",".join(hops).split(",")[-_PROXIES_AT_MOST:]):
        if not any(source in network for network in trusted):
            break
        before = read_address(hop.strip())
        if before is None:
            break
        source = before
    return source


def read_address(text: str) -> Address | None:
    """The address that the text is, an IPv4 address inside IPv6 as itself; None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def site_of(source: Address) -> Address | IPv6Network:
    """What counts as one source: an IPv4 address, or a /64 of IPv6, of which one customer has all."""
    if isinstance(source, IPv4Address):
        return source
    return IPv6Network((source, _SITE_BITS), strict=False)


def _replay(body: bytes) -> Receive:
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            await trio.sleep_forever()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _lifespan(receive: Receive, send: Send) -> None:
    """The app has nothing to start or stop: the actor does that."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class _Answer:
    """Remembers whether an answer has begun, and its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    @property
    def began(self) -> bool:
        return bool(self.status)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class _TooLarge(Exception):
    """The body is, or will be, larger than allowed."""


class _Gone(Exception):
    """The client went away before its request was complete."""
