"""Hostile HTTP against everything that listens: the gateway, the admin listener, a node agent (plain and over TLS), a simulator.

Every case is sent to every listener by a socket of its own. None of them may hurt another client, end an actor or a process,
switch the protocol, or get an answer that repeats what it says.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import trio

from actors.desk.admin import Admin, AdminSettings
from actors.gateway.gateway import GatewaySettings
from runtime.http import ConnectionLimits, new_client
from runtime.testing import OnCrash, actor_system
from simulators.server import serving as serving_simulator
from simulators.stripe import Stripe
from tests.actors.gateway.test_gateway import serving as serving_gateway
from tests.fork_server import ForkServer
from tests.vpn.agents import TOKEN, arguments, running_agent
from tests.vpn.certificate import Authority
from tests.vpn.conftest import fork_server as fork_server

HEAD_SECONDS = 0.5
MAX_HEADER = 2048


@attrs.frozen
class Listener:
    """One that listens, as a stranger sees it."""

    port: int
    path: bytes
    "One that is answered with 200."
    headers: bytes
    "What that needs."
    alive: Callable[[], Awaitable[bool]]
    "Whether it still serves others, in its first life."
    tls: ssl.SSLContext | None = None

    async def open(self) -> trio.abc.Stream:
        """A connection."""
        plain = await trio.open_tcp_stream("127.0.0.1", self.port)
        if self.tls is None:
            return plain
        stream = trio.SSLStream(plain, self.tls, server_hostname="node.example", https_compatible=True)
        await stream.do_handshake()
        return stream

    async def talk(self, *parts: bytes) -> bytes:
        """Send these bytes and return what comes until the listener hangs up."""
        answer = b""
        with trio.fail_after(30):
            stream = await self.open()
            async with stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    for part in parts:
                        await stream.send_all(part)
                        await trio.lowlevel.checkpoint()
                with contextlib.suppress(trio.BrokenResourceError):
                    while found := await stream.receive_some(65536):
                        answer += found
        return answer

    def good(self, more: bytes = b"connection: close\r\n") -> bytes:
        """A request that is answered with 200."""
        return b"GET " + self.path + b" HTTP/1.1\r\nhost: localhost\r\n" + self.headers + more + b"\r\n"


async def answers(client: httpx.AsyncClient, path: str) -> bool:
    """Whether it says 200."""
    return (await client.get(path)).status_code == 200


@asynccontextmanager
async def gateway(_: Path, __: ForkServer) -> AsyncIterator[Listener]:
    settings = GatewaySettings(port=0, head_seconds=HEAD_SECONDS, max_header=MAX_HEADER, rate=1e6, burst=1_000_000)
    async with serving_gateway(settings) as here:

        async def alive() -> bool:
            return await answers(here.browser, "/healthz") and here.ref.incarnation == 1

        yield Listener(here.port, b"/healthz", b"", alive)


@asynccontextmanager
async def admin(_: Path, __: ForkServer) -> AsyncIterator[Listener]:
    settings = AdminSettings(port=0, head_seconds=HEAD_SECONDS, max_header=MAX_HEADER, rate=1e6, burst=1_000_000)
    async with actor_system() as system:
        ref = await system.start(Admin(settings), name="admin", on_crash=OnCrash.RESTART)
        url = system.address(ref).facts["listening"]
        async with new_client(url) as browser:

            async def alive() -> bool:
                return await answers(browser, "/livez") and ref.incarnation == 1

            yield Listener(int(url.rpartition(":")[2]), b"/metrics", b"", alive)


@asynccontextmanager
async def agent(directory: Path, server: ForkServer, tls: Authority | None = None) -> AsyncIterator[Listener]:
    directory.mkdir()
    argv = arguments(directory / "node")
    text = 'data_dir = "node"\ntoken_file = "node.token"\n'
    text += f"[http]\nhead_seconds = {HEAD_SECONDS}\nmax_header = {MAX_HEADER}\n"
    context = None
    if tls is not None:
        certificate, key = tls.issue("node.example")
        text = f'{text}[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
        context = ssl.create_default_context(cafile=str(tls.file))
    (directory / "node.toml").write_text(text)
    command = [*argv[:3], "--config", str(directory / "node.toml"), "--parent-stdin"]
    token = f"Bearer {TOKEN}"
    async with running_agent(directory / "node", argv=command, server=server) as running:
        url = running.url.replace("127.0.0.1", "node.example") if tls else running.url
        port = int(url.rpartition(":")[2])
        listener = Listener(port, b"/v1/users", f"authorization: {token}\r\n".encode(), running_still, context)

        async def alive() -> bool:
            answer = await listener.talk(listener.good())
            return answer.startswith(b"HTTP/1.1 200") and running.child.returncode is None

        yield attrs.evolve(listener, alive=alive)


async def running_still() -> bool:
    """Replaced by what knows the process."""
    raise AssertionError("unreachable")


@asynccontextmanager
async def agent_behind_tls(directory: Path, server: ForkServer) -> AsyncIterator[Listener]:
    async with agent(directory, server, Authority(directory.parent, "authority.example")) as listener:
        yield listener


@asynccontextmanager
async def simulator(_: Path, __: ForkServer) -> AsyncIterator[Listener]:
    limits = ConnectionLimits(head_seconds=HEAD_SECONDS, max_header=MAX_HEADER)
    stripe = Stripe("sk", ["whsec"])
    stripe.sessions["cs_1"] = {"id": "cs_1"}
    headers = {"authorization": "Bearer sk"}
    async with serving_simulator(stripe.app, limits) as url, new_client(url, headers=headers) as browser:

        async def alive() -> bool:
            return await answers(browser, "/v1/checkout/sessions/cs_1")

        port = int(url.rpartition(":")[2])
        yield Listener(port, b"/v1/checkout/sessions/cs_1", b"authorization: Bearer sk\r\n", alive)


LISTENERS: dict[str, Callable[[Path, ForkServer], AbstractAsyncContextManager[Listener]]] = {
    "gateway": gateway,
    "admin": admin,
    "agent": agent,
    "agent behind TLS": agent_behind_tls,
    "simulator": simulator,
}


@pytest.fixture(params=LISTENERS)
async def listener(request: pytest.FixtureRequest, tmp_path: Path, fork_server: ForkServer) -> AsyncIterator[Listener]:
    async with LISTENERS[request.param](tmp_path / "listener", fork_server) as running:
        yield running


GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
WEBSOCKET = GET + b"connection: Upgrade\r\nupgrade: websocket\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"p" * 8

REFUSED = {
    "zeros": b"\x00" * 4000,
    "bytes above 127": b"\xff\xfe\r\n\r\n",
    "no request line": b"\r\n\r\n\r\n\r\nx\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
    "HTTP/2 with prior knowledge": PREFACE + SETTINGS + PING * 10,
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "two lengths": POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a negative length": POST + b"content-length: -1\r\n\r\n",
    "a length that is no number": POST + b"content-length: 1e3\r\n\r\n",
    "a length beyond all measure": POST + b"content-length: " + b"9" * 400 + b"\r\n\r\n",
    "a length and chunks": POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a header without a colon": GET + b"this is no header\r\n\r\n",
    "a space before the colon": GET + b"content-length : 3\r\n\r\nabc",
    "a zero byte in the line": b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a whole address": b"GET http://example.org/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a WebSocket": WEBSOCKET + KEY + b"\r\n",
    "a WebSocket whose protocol is no ASCII": WEBSOCKET + KEY + b"sec-websocket-protocol: \xe9\xff\r\n\r\n",
    "a WebSocket without a key": WEBSOCKET + b"\r\n",
    "a WebSocket with a bad version": WEBSOCKET + b"sec-websocket-key: a\r\nsec-websocket-version: 99\r\n\r\n",
    "a WebSocket with bad extensions": WEBSOCKET
    + KEY
    + b"sec-websocket-extensions: permessage-deflate; a=\x01\r\n\r\n",
    "a WebSocket and a broken frame": WEBSOCKET + KEY + b"\r\n" + b"\xff" * 8,
    "a head that is too large": GET + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
}
"Each is refused, by 4xx or 5xx other than 500 or without a word, and what comes behind it on its connection is never served."


async def test_what_is_refused_ends_its_own_connection_and_nothing_else(listener: Listener) -> None:
    async def send(name: str) -> None:
        answer = await listener.talk(REFUSED[name] + listener.good())
        assert answer == b"" or re.match(rb"HTTP/1\.1 (4\d\d|50[1-5]) ", answer), (name, answer[:100])
        assert answer.count(b"HTTP/1.1") <= 1, (name, "what came behind it was served as a request")

    for name in REFUSED:  # one after the other first, so that a failure names who did it
        await send(name)
        assert await listener.alive(), name
    async with trio.open_nursery() as nursery:
        for name in REFUSED:
            nursery.start_soon(send, name)
    assert await listener.alive()


async def test_an_offer_of_http_2_is_answered_in_http_1(listener: Listener) -> None:
    """RFC 9110, 7.8: a server may ignore it. Some clients offer it with each first request."""
    offer = (
        b"connection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    )
    answer = await listener.talk(listener.good(offer))
    assert answer.startswith(b"HTTP/1.1 200")
    assert await listener.talk(listener.good(offer), PREFACE + SETTINGS + PING) == answer or answer


async def test_no_answer_repeats_the_name_that_a_request_gives_this_host(listener: Listener) -> None:
    for path in (listener.path + b"/", b"//evil.example/", b"/v1/"):
        request = (
            b"GET " + path + b" HTTP/1.1\r\nhost: evil.example\r\n" + listener.headers + b"connection: close\r\n\r\n"
        )
        answer = await listener.talk(request)
        assert re.match(rb"HTTP/1\.1 4\d\d ", answer), path
        assert b"location" not in answer.lower() and b"evil.example" not in answer


NAMES = {
    "too long": [b"/" + b"9" * 1500, b"/v1/users/" + b"a" * 1000, b"/s/" + b"a" * 1000],
    "no text": [b"/%ff%fe", b"/v1/users/%ff"],
    "characters of control": [b"/v1/users/a%00b", b"/v1/users?after=%00", b"/s/a%0Ab", b"/%00", b"/shop/v1/orders/%00"],
}


@pytest.mark.parametrize("path", [path for paths in NAMES.values() for path in paths])
async def test_a_name_that_cannot_be_one_is_unknown_or_refused(listener: Listener, path: bytes) -> None:
    head = b" HTTP/1.1\r\nhost: localhost\r\n" + listener.headers + b"connection: close\r\n\r\n"
    answer = await listener.talk(b"GET " + path + head)
    assert re.match(rb"HTTP/1\.1 (400|404|422) ", answer)


async def test_half_a_request_is_waited_for_only_so_long(listener: Listener) -> None:
    halves = [
        b"",
        b"GET /",
        GET,
        POST + b"content-length: 100\r\n\r\nhalf",
        POST + b"transfer-encoding: chunked\r\n\r\n5\r\nhel",
    ]

    async def send(half: bytes) -> None:
        answer = await listener.talk(half)
        assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer)

    async with trio.open_nursery() as nursery:
        for half in halves:
            nursery.start_soon(send, half)
    assert await listener.alive()


async def test_a_hundred_who_send_nothing_leave_room_for_others(listener: Listener) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(listener.talk, b"GET / HT")
        assert await listener.alive()


async def test_a_client_that_does_not_read_is_cut_off_and_others_are_served(listener: Listener) -> None:
    stream = await listener.open()
    async with stream:
        with trio.fail_after(60), contextlib.suppress(trio.BrokenResourceError):
            while True:  # until the listener has had enough: it reads nothing more, then it hangs up
                await stream.send_all(listener.good(b"") * 50)
    assert await listener.alive()


async def test_requests_that_come_together_are_answered_in_order(listener: Listener) -> None:
    answer = await listener.talk(listener.good(b"") * 20 + listener.good())
    assert answer.count(b"HTTP/1.1 200") == 21


async def test_resets_in_the_middle_of_everything_leave_nothing_behind(listener: Listener) -> None:
    for part in (b"", b"GET /", GET, listener.good(b""), POST + b"content-length: 9\r\n\r\nab"):
        with socket.create_connection(("127.0.0.1", listener.port)) as plain:
            plain.sendall(part)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        assert await listener.alive()
