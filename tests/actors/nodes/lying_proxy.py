"""An HTTP proxy in front of a node's agent that rewrites, loses or withholds answers as told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http.client import parse_headers
from io import BytesIO

import attrs
import trio

LOST = None
"""What a lie returns to cut the connection after the agent has done its work."""

Lie = Callable[[str, bytes], "bytes | None"]
"""Given the request line and the body of the answer, another body, or LOST."""


@attrs.define(eq=False)
class LyingProxy:
    """Truthful until `lie` is set. `lied` counts the answers that were changed; they get `status`, if it is set.

    Answers to requests that begin with `withheld` do not come until `release`, and `held` counts them; requests that begin with
    `refused` never arrive.
    """

    url: str
    target: int
    lie: Lie | None = None
    lied: int = 0
    status: bytes | None = None
    withheld: str | None = None
    refused: str | None = None
    held: int = 0
    requests: list[str] = attrs.field(factory=list)
    _released: trio.Event = attrs.field(factory=trio.Event)

    def release(self) -> None:
        """Let the withheld answers go, and withhold no more."""
        self.withheld = None
        self._released.set()

    async def serve(self, client: trio.SocketStream) -> None:
        """One connection: one request, one answer."""
        async with client:
            with suppress(trio.BrokenResourceError, ConnectionError, OSError):
                head, body = await _message(client)
                if not head:
                    return
                lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
                self.requests.append(lines[0].decode())
                if self.refused is not None and lines[0].decode().startswith(self.refused):
                    return
                async with await trio.open_tcp_stream("127.0.0.1", self.target) as agent:
                    await agent.send_all(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
                    answer_head, answer = await _message(agent)
                if self.withheld is not None and lines[0].decode().startswith(self.withheld):
                    self.held += 1
                    await self._released.wait()
                told: bytes | None = answer
                if self.lie is not None:
                    told = self.lie(lines[0].decode(), answer)
                    self.lied += told != answer
                if told is LOST:
                    return
                status = answer_head.split(b"\r\n", 1)[0]
                if told != answer:
                    status = self.status or status
                await client.send_all(
                    b"%s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                    % (status, len(told), told)
                )


async def _message(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some()
        if not part:
            return b"", b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(parse_headers(BytesIO(head.partition(b"\r\n")[2] + b"\r\n\r\n")).get("content-length", "0"))
    while len(body) < length:
        part = await stream.receive_some()
        if not part:
            break
        body += part
    return head, body


def lists(change: Callable[[dict[str, object]], object]) -> Lie:
    """A lie about lists of keys: `change` gets the answer as JSON and changes it in place."""

    def lie(request: str, answer: bytes) -> bytes:
        if not request.startswith("GET /v1/users?"):
            return answer
        told = json.loads(answer)
        change(told)
        return json.dumps(told).encode()

    return lie


def loses(*beginnings: str, times: int = 1_000_000) -> Lie:
    """Answers to requests that begin like this are lost, so many times, after the agent has done its work."""
    left = times

    def lie(request: str, answer: bytes) -> bytes | None:
        nonlocal left
        if left and request.startswith(beginnings):
            left -= 1
            return LOST
        return answer

    return lie


@asynccontextmanager
async def lying_proxy(target_url: str) -> AsyncIterator[LyingProxy]:
    """A proxy in front of this address for as long as the block lasts."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    proxy = LyingProxy(f"http://127.0.0.1:{port}", int(target_url.rpartition(":")[2]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.serve, listeners)
        yield proxy
        nursery.cancel_scope.cancel()
