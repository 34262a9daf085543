"""The one place that makes HTTP clients.

Every client refuses to talk while the calling task holds a database lease (D24): the check sits in the transport, so
no call can go around it.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator

import attrs
import httpx

from runtime.core.lease_guard import refuse_if_leased


def reason_of(error: BaseException) -> str:
    """Why a call failed, in the words of the innermost cause that has any: httpx's own errors often say nothing."""
    said = ""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        said = _words(seen) or said
        seen = seen.__cause__ or seen.__context__
    return said or type(error).__name__


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


@attrs.frozen
class Timeouts:
    """Seconds allowed for each part of an HTTP exchange."""

    connect: float = 3.0
    read: float = 10.0
    write: float = 10.0
    pool: float = 5.0

    def to_httpx(self) -> httpx.Timeout:
        """The same for httpx."""
        return httpx.Timeout(connect=self.connect, read=self.read, write=self.write, pool=self.pool)


class _Body(httpx.AsyncByteStream):
    """A whole body. httpx's own is an async generator, which is left unfinished, with a warning, when the connection breaks
    while it is sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._is_sent = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._is_sent = False
        return self

    async def __anext__(self) -> bytes:
        if self._is_sent or not self._data:
            raise StopAsyncIteration
        self._is_sent = True
        return self._data


class _GuardedStream(httpx.AsyncByteStream):
    """The body of a response, read piece by piece; refuses, as the request did, once the reader holds a lease."""

    def __init__(self, inner: httpx.AsyncByteStream, what: str) -> None:
        self._inner = inner
        self._what = what
        self._parts: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._parts = aiter(self._inner)
        return self

    async def __anext__(self) -> bytes:
        refuse_if_leased(self._what)
        assert self._parts is not None, "httpx iterates what it was given"
        return await anext(self._parts)

    async def aclose(self) -> None:
        await self._inner.aclose()


class GuardedTransport(httpx.AsyncBaseTransport):
    """Passes requests on, except from a task that holds a database lease: that raises LeaseHeldAcrossCall."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = f"HTTP {request.method} to {request.url.host or 'a local socket'}"
        refuse_if_leased(exchange)
        if isinstance(request.stream, httpx.ByteStream):
            request.stream = _Body(request.content)
        response = await self._inner.handle_async_request(request)
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _GuardedStream(response.stream, f"reading the answer of {exchange}")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


@functools.cache
def authorities() -> ssl.SSLContext:
    """The public certificate authorities, for every client that is given no context of its own.

    Read once: reading them stops the loop for 20 to 40 ms.
    """
    return httpx.create_ssl_context(trust_env=False)


def new_client(
    base_url: str = "",
    *,
    headers: dict[str, str] | None = None,
    timeouts: Timeouts | None = None,
    max_connections: int = 20,
    uds: str | None = None,
    http2_only: bool = False,
    proxy: str | None = None,
    verify: ssl.SSLContext | bool = True,
) -> httpx.AsyncClient:
    """An httpx client for trio, guarded. Use it as an async context manager, or `aclose()` it.

    It takes nothing from the environment (no proxies, no netrc), follows no redirects and never retries by itself.
    `uds` talks to a Unix socket, `http2_only` speaks HTTP/2 without negotiation (gRPC), `proxy` sends everything through a
    proxy URL, `verify` is an SSL context for https addresses, by default the public authorities.
    """
    transport = httpx.AsyncHTTPTransport(
        verify=authorities() if verify is True else verify,
        http1=not http2_only,
        http2=http2_only,
        limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        uds=uds,
        proxy=None if proxy is None else httpx.Proxy(proxy),
        trust_env=False,
        retries=0,
    )
    return httpx.AsyncClient(
        base_url=base_url,
        headers=headers,
        timeout=(timeouts or Timeouts()).to_httpx(),
        transport=GuardedTransport(transport),
        trust_env=False,
        follow_redirects=False,
    )
