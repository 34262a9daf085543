"""The HTTP server: streams, clients that stop reading, stops, and what HTTP/1.1 asks of it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.http import ConnectionLimits, HttpServer, LimitedApp, RequestLimits, open_listener, route
from runtime.http.listener import SMALL_SEND_BUFFER
from tests.run_queue import at_most

HEAD_SECONDS = 0.2
LIMITS = ConnectionLimits(head_seconds=HEAD_SECONDS)
Endpoint = Callable[[Request], Awaitable[Response]]


@attrs.define(eq=False)
class Served:
    """A running server."""

    port: int
    server: HttpServer
    stop: trio.Event
    ended: trio.Event
    crashes: list[str]

    async def talk(self, data: bytes) -> bytes:
        """Send these bytes and return everything until the server hangs up."""
        answer = b""
        with trio.fail_after(30):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(data)
                while found := await stream.receive_some():
                    answer += found
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this holds of the server."""
        with trio.fail_after(30):
            while not condition():
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(app: ASGIApp, limits: ConnectionLimits = LIMITS) -> AsyncIterator[Served]:
    listener = open_listener("127.0.0.1", 0, send_buffer=SMALL_SEND_BUFFER)
    crashes: list[str] = []
    server = HttpServer("tested", app, limits, crashes.append)
    here = Served(listener.getsockname()[1], server, trio.Event(), trio.Event(), crashes)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await server.run(listener, here.stop)
            here.ended.set()

        nursery.start_soon(run)
        try:
            yield here
        finally:
            here.stop.set()


def answering(endpoint: Endpoint, *methods: str) -> ASGIApp:
    """An app with this one endpoint at `/`."""
    return route([Route("/", endpoint, methods=list(methods) or ["GET", "POST"])])


async def hello(_: Request) -> Response:
    """Something small."""
    return PlainTextResponse("hello")


async def endless(_: Scope, receive: Receive, send: Send) -> None:
    """As much as is read."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in itertools.count():
        await send({"type": "http.response.body", "body": b"%d " % number * 1000, "more_body": True})


GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("limited", [False, True])
async def test_a_stream_that_is_read_goes_on_for_longer_than_any_limit(limited: bool) -> None:
    """Neither the patience with a client that stands still nor the time for a request ends it."""
    limits = RequestLimits(head_seconds=HEAD_SECONDS, request_seconds=HEAD_SECONDS)
    app: ASGIApp = endless
    if limited:
        app = LimitedApp(app, limits, name="tested", crashed=lambda _: None)
    async with serving(app, limits) as here:
        async with await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
            await stream.send_all(GET)
            began = trio.current_time()
            while trio.current_time() < began + limits.patience * 2:
                assert await stream.receive_some(), "the stream was cut"
        await here.until(lambda: here.server.open == 0)
        assert here.crashes == []


async def test_a_client_that_stops_reading_a_stream_is_cut_off() -> None:
    async with serving(endless) as here, await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
        await stream.send_all(GET)
        assert await stream.receive_some(1)
        await here.until(lambda: here.server.open == 0)


async def test_a_client_that_stops_reading_does_not_hold_up_the_stop() -> None:
    async with serving(endless, ConnectionLimits(head_seconds=3600)) as here:
        stream = await trio.open_tcp_stream("127.0.0.1", here.port)
        await stream.send_all(GET)
        assert await stream.receive_some(1)
        here.stop.set()
        with trio.fail_after(here.server.grace + 1.0):
            await here.ended.wait()
        await stream.aclose()


async def test_a_stop_lets_a_request_in_progress_finish_and_idle_connections_go_at_once() -> None:
    go_on = trio.Event()

    async def slow(_: Request) -> Response:
        await go_on.wait()
        return PlainTextResponse("done")

    async with serving(answering(slow), ConnectionLimits(head_seconds=3600)) as here:
        idle = await trio.open_tcp_stream("127.0.0.1", here.port)
        busy = await trio.open_tcp_stream("127.0.0.1", here.port)
        async with idle, busy:
            await busy.send_all(GET)
            await here.until(lambda: here.server.open == 2)
            await trio.testing.wait_all_tasks_blocked(0.05)
            here.stop.set()
            with at_most(1.5):
                assert await idle.receive_some() == b""
            go_on.set()
            answer = b""
            while found := await busy.receive_some():
                answer += found
            assert answer.endswith(b"done") and b"connection: close" in answer.lower()


async def test_an_app_is_told_when_the_client_of_its_stream_goes() -> None:
    told = trio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    async with serving(app, ConnectionLimits(head_seconds=3600)) as here:
        async with await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
            await stream.send_all(GET)
            assert await stream.receive_some()
        with trio.fail_after(10):
            await told.wait()


async def test_an_app_that_raises_gives_its_client_a_500_and_others_are_served() -> None:
    async def broken(_: Request) -> Response:
        raise KeyError("teller")

    async with serving(answering(broken)) as here:
        assert (await here.talk(GET)).startswith(b"HTTP/1.1 500")
        assert here.crashes == ["KeyError: 'teller'"]
        assert (await here.talk(GET)).startswith(b"HTTP/1.1 500")


async def test_an_app_that_raises_amid_its_answer_gives_it_no_regular_end() -> None:
    async def broken(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        raise ValueError

    def fetch(port: int) -> bytes:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
            client.request("GET", "/")
            return client.getresponse().read()

    async with serving(broken) as here:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            await trio.to_thread.run_sync(fetch, here.port)


async def test_a_client_of_the_standard_library_keeps_its_connection() -> None:
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    def converse(port: int) -> list[bytes]:
        found = []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
            client.connect()
            first = client.sock
            for body in (b"one", b"x" * 200_000, iter([b"in ", b"chunks"])):
                client.request("POST", "/", body=body, encode_chunked=not isinstance(body, bytes))
                found.append(client.getresponse().read())
            client.request("HEAD", "/")
            assert client.getresponse().read() == b""
            assert client.sock is first, "the connection was not kept"
        return found

    async with serving(answering(echo, "POST", "HEAD"), ConnectionLimits(head_seconds=30)) as here:
        found = await trio.to_thread.run_sync(converse, here.port)
        assert found == [b"one", b"x" * 200_000, b"in chunks"]


async def test_a_head_request_gets_the_head_of_the_answer_alone() -> None:
    async with serving(answering(hello)) as here:
        answer = await here.talk(b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"content-length: 5\r\n" in answer and answer.endswith(b"\r\n\r\n")


async def test_a_client_that_asks_first_is_told_to_send_its_body_when_it_is_wanted() -> None:
    async def read(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    asks = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    async with serving(answering(read)) as here, await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
        await stream.send_all(asks)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"abc")
        assert (await stream.receive_some()).endswith(b"3")
    async with serving(answering(hello)) as here:
        assert b"HTTP/1.1 100" not in await here.talk(asks), "a body that is not wanted is not asked for"


async def test_an_answer_reaches_a_client_whose_large_body_was_not_read() -> None:
    def upload(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n" + b"x" * 900_000)
            return int(plain.makefile("rb").readline().split()[1])

    async def refuse(_: Request) -> Response:
        return PlainTextResponse("no", 403)

    async with serving(answering(refuse), ConnectionLimits(head_seconds=30)) as here:
        for _ in range(5):
            assert await trio.to_thread.run_sync(upload, here.port) == 403


async def test_http_1_0_gets_its_answer_and_the_end_of_the_connection() -> None:
    async with serving(answering(hello)) as here:
        assert (await here.talk(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"hello")


async def test_requests_sent_together_are_answered_in_order_also_behind_a_stream() -> None:
    async def three(_: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"a", b"b", b"c"):
                yield part
                await trio.lowlevel.checkpoint()

        return StreamingResponse(parts())

    async with serving(answering(three)) as here:
        answer = await here.talk(GET * 10 + LAST)
        assert answer.count(b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n") == 11


async def test_a_request_that_comes_amid_a_stream_is_answered_after_it() -> None:
    came, go_on = trio.Event(), trio.Event()

    async def patient(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)  # waits for the end of the client, as a stream does
            came.set()
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"last"})

    async with serving(patient, ConnectionLimits(head_seconds=30)) as here:
        async with await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
            await stream.send_all(GET)
            await came.wait()
            await stream.send_all(GET)
            await trio.testing.wait_all_tasks_blocked(0.05)
            go_on.set()
            answer = b""
            with trio.fail_after(10):
                while answer.count(b"last") < 2:
                    found = await stream.receive_some()
                    assert found, "the connection was closed"
                    answer += found
        assert answer.count(b"first") == 2 and here.crashes == []


async def test_without_file_descriptors_it_waits_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(hello)) as here:
        refused = iter([OSError(24, "Too many open files")] * 3)
        with trio.socket.socket() as any_socket:
            kind = type(any_socket)
        accept = kind.accept

        async def short(self: trio.socket.SocketType) -> object:
            for error in refused:
                raise error
            return await accept(self)

        monkeypatch.setattr(kind, "accept", short)
        for _ in range(2):
            assert (await here.talk(LAST)).endswith(b"hello")
        assert here.crashes == ["no connection can be accepted: Too many open files (0 times before)"]
