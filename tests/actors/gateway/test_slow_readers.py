"""Clients that do not read what they asked for, and clients that want every connection: they cost nobody else anything."""

from __future__ import annotations

import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import attrs
import httpx
import trio

from actors.gateway.gateway import GatewaySettings
from actors.shop.settings import ShopSettings
from runtime.config import Secret
from tests.actors.gateway.test_gateway import Served, serving
from tests.run_queue import at_most

QUICK = GatewaySettings(port=0, head_seconds=1.0, request_seconds=5.0, max_requests=2, rate=1e6, burst=100_000)
PATIENT = attrs.evolve(QUICK, head_seconds=30.0, request_seconds=90.0)
LARGE = b"GET /shop/v1/openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
MORE_THAN_BUFFERS_HOLD = 300


@asynccontextmanager
async def shop(settings: GatewaySettings) -> AsyncIterator[Served]:
    """A gateway that has something large to give to everybody."""
    async with serving(settings, shop=ShopSettings(keys=Secret("front " + "f" * 40))) as here:
        yield here


@contextmanager
def not_reading(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that ask for more than the buffers between the two sides hold, and read nothing."""
    with ExitStack() as stack:
        readers = [stack.enter_context(socket.socket()) for _ in range(count)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            reader.connect(("127.0.0.1", port))
            reader.sendall(LARGE * MORE_THAN_BUFFERS_HOLD)
        yield readers


async def until_cut(reader: socket.socket) -> None:
    """Wait until the other side has ended the connection, without reading from it."""
    poll = select.poll()
    poll.register(reader, 0)  # errors and hang-ups are always told
    assert await trio.to_thread.run_sync(poll.poll, 10_000), "the connection is still open"


async def until_busy(here: Served) -> None:
    """Wait until every request that may be in progress is, and stays so: the buffers are full."""
    refused = 0
    with trio.fail_after(10):
        while refused < 20:
            refused = refused + 1 if (await here.browser.get("/healthz")).status_code == 503 else 0


async def test_who_does_not_read_an_answer_is_cut_off_and_others_have_the_places_again() -> None:
    async with shop(QUICK) as here:
        with not_reading(here.port, QUICK.max_requests) as readers:
            await until_busy(here)
            for reader in readers:
                await until_cut(reader)
        with trio.fail_after(10):
            while (await here.browser.get("/healthz")).status_code != 200:
                pass
        await here.assert_unharmed()


async def test_who_does_not_read_an_answer_does_not_hold_up_the_stop() -> None:
    async with shop(PATIENT) as here:
        with not_reading(here.port, PATIENT.max_requests):
            await until_busy(here)
            with at_most(3.0):  # the two seconds for requests in progress, and one more
                await here.system.stop(here.ref)


async def test_one_source_cannot_have_every_connection_and_a_proxy_of_ours_can() -> None:
    settings = attrs.evolve(PATIENT, max_connections=4, max_connections_per_source=2)
    async with shop(settings) as here:
        await here.browser.aclose()
        first, second = [await trio.open_tcp_stream("127.0.0.1", here.port) for _ in range(2)]
        async with first, second:
            assert await here.raw(b"") == b""
        with trio.fail_after(10):
            while not (await here.raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")):
                pass
    async with shop(attrs.evolve(settings, trusted_proxies=("127.0.0.0/8",))) as here:
        await here.browser.aclose()
        first, second = [await trio.open_tcp_stream("127.0.0.1", here.port) for _ in range(2)]
        async with first, second, httpx.AsyncClient(base_url=here.browser.base_url, trust_env=False) as browser:
            assert (await browser.get("/healthz")).status_code == 200
