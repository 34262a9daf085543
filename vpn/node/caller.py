"""One call to a node's agent: it waits for its turn, is sent, repeated where that is harmless, and its failure is
classified.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Final

import attrs
import httpx
import trio

from runtime.http import Timeouts, reason_of
from vpn.errors import (
    BreakerOpen,
    NodeAmbiguous,
    NodeCannotList,
    NodeConflict,
    NodeError,
    NodeNotOwner,
    NodeProtocolError,
    NodeReadOnly,
    NodeRefused,
    NodeTlsFailed,
    NodeTooLarge,
    NodeUnauthorized,
    NodeUnavailable,
    NodeUnknownKey,
    NodeUnreachable,
)
from vpn.node.breaker import Breaker, BreakerState
from vpn.node.tls import perhaps_tls, tls_mistake, tls_needed
from vpn.node.wire import readable
from vpn.protocol import BELIEVED_GENERATION, IDEMPOTENT

LONGEST_ANSWER: Final = 16 * 1024 * 1024
"Bytes of one answer; a whole page of anything is far smaller."


@attrs.define(eq=False)
class AgentCaller:
    """Calls to one agent. At most `concurrency` are on their way at once; the others wait, within their time.

    `AgentClient` says what the other settings mean.
    """

    name: str
    url: str
    http: httpx.AsyncClient
    timeouts: Timeouts
    within: float
    repeats: int
    pause: float
    breaker: Breaker | None
    concurrency: int
    _limiter: trio.CapacityLimiter = attrs.field(init=False)
    _last_failure: str = attrs.field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self.concurrency)

    async def call(
        self, operation: str, method: str, path: str, *, content: bytes | None = None, within: float | None = None
    ) -> object:
        """Make one call and return the JSON object of the answer.

        `operation` is one of `vpn.protocol.VpnNode`: those in IDEMPOTENT are repeated after a lost connection or
        answer. `within` is the time for everything, waiting and repeats included, in seconds (default: the client's).
        Raises NodeError.
        """
        limit = within or self.within
        tries = 1 + (self.repeats if operation in IDEMPOTENT else 0)
        deadline = trio.current_time() + limit
        pause = self.pause
        lost: NodeError | None = None
        for attempt in range(1, tries + 1):
            try:
                async with self._admitted(deadline, limit):
                    return await self._once(method, path, content, deadline, limit)
            except (NodeUnreachable, NodeAmbiguous) as error:
                # what was lost once stays in doubt, whatever keeps the repetition from being sent
                doubt = lost if isinstance(lost, NodeAmbiguous) else error
                pause_now = pause * (0.5 + random.random())  # noqa: S311  # scatters retries, protects nothing
                is_late = attempt == tries or trio.current_time() + pause_now >= deadline
                if is_late or isinstance(error, NodeTlsFailed) or self._is_open():
                    if doubt is error:
                        raise
                    raise doubt from None
                lost = doubt
                await trio.sleep(pause_now)
                pause *= 2
            except BreakerOpen:
                # failures of other calls opened it meanwhile: this call was tried, and must not say that it was not
                if lost is not None:
                    raise lost from None
                raise
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def _admitted(self, deadline: float, limit: float) -> AsyncIterator[None]:
        token = object()
        with trio.move_on_at(deadline) as waiting:
            await self._limiter.acquire_on_behalf_of(token)
        if waiting.cancelled_caught:
            # this says nothing about the node, so the breaker does not count it
            raise NodeUnreachable(
                self.name,
                f"not sent: {self.concurrency} calls to it were on their way for {limit:g} s already",
            )
        try:
            yield
        finally:
            self._limiter.release_on_behalf_of(token)

    async def _once(self, method: str, path: str, content: bytes | None, deadline: float, limit: float) -> object:
        self._admit()
        try:
            answer = await self._send(method, path, content, deadline, limit)
        except NodeError as error:
            is_failure = isinstance(error, NodeUnreachable | NodeAmbiguous | NodeUnavailable)
            if is_failure and not isinstance(error, NodeReadOnly | NodeNotOwner):
                self._last_failure = error.text
                if self.breaker is not None:
                    self.breaker.failure()
            elif self.breaker is not None:
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
                async with self.http.stream(
                    method, path, content=content, headers=headers, timeout=timeouts.to_httpx()
                ) as response:
                    body = await self._body(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            self._check_tls(error)
            raise NodeUnreachable(
                self.name,
                f"no connection to {self.url} ({reason_of(error)}); is `atlas node run` up there?",
            ) from error
        except (httpx.TransportError, trio.TooSlowError) as error:
            # with TLS 1.3, the agent looks at our certificate when we have sent the request already: it has not read it
            self._check_tls(error)
            raise NodeAmbiguous(
                self.name,
                f"{method} {path.partition('?')[0]} was sent, but no answer came within {limit:g} s "
                f"({reason_of(error)}): it may or may not have been done{perhaps_tls(error, self.url)}",
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise NodeProtocolError(
                self.name, f"an answer of {self.url} cannot be read ({type(error).__name__}); check the address"
            ) from error
        return self._answer(response.status_code, body)

    def _check_tls(self, error: Exception) -> None:
        if mistake := tls_mistake(error, self.url):
            raise NodeTlsFailed(self.name, f"no TLS connection to {self.url}: {mistake}") from error

    async def _body(self, response: httpx.Response) -> bytes:
        """The body as it was sent: nothing was asked to be packed, and unpacking could blow it up without limit."""
        body = bytearray()
        # cancelled, not left: that ends the generators inside httpx as well
        with trio.CancelScope() as scope:
            async for part in response.aiter_raw():
                body += part
                if len(body) > LONGEST_ANSWER:
                    scope.cancel()
        if len(body) > LONGEST_ANSWER:
            raise NodeProtocolError(
                self.name, f"an answer of {self.url} is longer than {LONGEST_ANSWER >> 20} MiB; check the address"
            )
        return bytes(body)

    def _answer(self, status: int, body: bytes) -> object:
        data: object = None
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(body)
        if 200 <= status < 300 and isinstance(data, dict):
            return data
        error = data.get("error") if isinstance(data, dict) else None
        if status == 413:  # of a proxy, which knows nothing of our errors, as well
            raise NodeTooLarge(
                self.name,
                f"the request is larger than {self.url}, or a proxy in front of it, takes; allow bodies of 1 MiB there",
                "too_large",
                status,
            )
        if not isinstance(error, dict):
            raise NodeProtocolError(
                self.name, f"HTTP {status} from {self.url} is not an answer of a node agent; check the address"
            )
        raise self.error_of(status, error)

    def error_of(self, status: int, error: Mapping[str, object]) -> NodeError:
        """The NodeError that an agent's error answer means: `status` is the HTTP status, `error` the object with `code`
        and `message`.
        """
        code, message = readable(error.get("code")), readable(error.get("message"))
        if mistake := tls_needed(status, code):
            return NodeTlsFailed(self.name, f"no TLS connection to {self.url}: {mistake}")
        if status == 401:
            return NodeUnauthorized(self.name, f"{message}; correct this node's token", code, status)
        if code == "unknown_key":
            return NodeUnknownKey(
                self.name, message, _generation(error.get("removed")), pending=error.get("pending") is True
            )
        if code == "cannot_list":
            return NodeCannotList(self.name, message, status)
        if code == "not_owner":
            return NodeNotOwner(
                self.name,
                message,
                readable(error.get("nonce_digest")),
                takes_changes=error.get("takes_changes") is True,
            )
        if status == 409:
            return NodeConflict(self.name, message, _generation(error.get("generation")))
        if status == 507:
            return NodeReadOnly(self.name, message)
        if status >= 500:
            return NodeUnavailable(self.name, message)
        return NodeRefused(self.name, message, code, status)


def _generation(value: object) -> int:
    """A generation that a node knows; -1 if it names none, or one that no key of ours can have."""
    return value if isinstance(value, int) and -1 <= value <= BELIEVED_GENERATION else -1
