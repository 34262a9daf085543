"""What the gateway answers to strangers, and that nothing they send hurts anybody else."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio

from actors.gateway.gateway import Gateway, GatewaySettings
from actors.payments.settings import PaymentSettings, StripeSettings, TelegramPaymentSettings, YooKassaSettings
from actors.shop.settings import ShopSettings
from runtime import Actor, Ref, StartRefused, unwrap_group
from runtime.config import Secret
from runtime.testing import ActorSystem, OnCrash, actor_system

QUICK = GatewaySettings(port=0, head_seconds=0.15, request_seconds=0.3, max_body=4096, max_header=2048)
ON = PaymentSettings(
    stripe=StripeSettings(
        secret_key=Secret("sk"),
        webhook_secret=Secret("whsec"),
        success_url="https://shop.example",
        url="http://[::1]:1",
    )
)


class NoPool(Actor):
    """Stands where the pool is: nothing that these tests send gets as far as a connection."""


@attrs.frozen
class Served:
    """A running gateway without a database."""

    system: ActorSystem
    ref: Ref
    browser: httpx.AsyncClient

    @property
    def port(self) -> int:
        return int(str(self.browser.base_url.port))

    async def raw(self, *parts: bytes, finish: bool = False) -> bytes:
        """Send bytes over a socket of one's own and return everything that comes back until the gateway hangs up."""
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            async with stream:
                answer = b""
                try:
                    for part in parts:
                        await stream.send_all(part)
                        await trio.lowlevel.checkpoint()
                    if finish:
                        await stream.send_eof()
                    while found := await stream.receive_some():
                        answer += found
                except trio.BrokenResourceError:
                    pass
                return answer

    async def assert_unharmed(self) -> None:
        """It still serves, in its first life."""
        assert (await self.browser.get("/healthz")).status_code == 200
        assert self.ref.incarnation == 1


@asynccontextmanager
async def serving(
    settings: GatewaySettings = QUICK, payments: PaymentSettings = ON, shop: ShopSettings | None = None
) -> AsyncIterator[Served]:
    async with actor_system() as system:
        await system.start(NoPool(), name="pool.gateway")
        actor = Gateway(settings, payments, shop or ShopSettings())
        ref = await system.start(actor, name="gateway", on_crash=OnCrash.RESTART)
        url = system.address(ref).facts["listening"]
        # A connection of its own for each request: an idle one is closed at any moment with limits as short as these.
        each_its_own = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, trust_env=False, limits=each_its_own) as browser:
            yield Served(system, ref, browser)


async def test_without_a_provider_it_serves_and_says_so() -> None:
    async with serving(payments=PaymentSettings()) as here:
        assert here.system.address(here.ref).facts["providers"] == "none"
        assert (await here.browser.get("/healthz")).json() == {"ready": True, "why": "", "providers": []}
        for provider in ("telegram", "cryptobot", "yookassa", "stripe"):
            assert (await here.browser.post(f"/payments/{provider}", content=b"{}")).status_code == 404


async def test_it_says_which_providers_are_on() -> None:
    async with serving() as here:
        assert here.system.address(here.ref).facts["providers"] == "stripe"
        assert (await here.browser.get("/payments/stripe")).status_code == 405
        assert (await here.browser.post("/payments/stripe", content=b"{}")).status_code == 401


HEAD = b"POST /payments/stripe HTTP/1.1\r\nhost: a\r\n"
UPGRADE = b"GET /payments/stripe HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
HOSTILE = {
    "zeros": b"\x00" * 4000,
    "bytes above 127": b"\xff\xfe\r\n\r\n",
    "no request line": b"\r\n\r\n\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/2 unasked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 64,
    "h2c upgrade": b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two lengths": HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a negative length": HEAD + b"content-length: -1\r\n\r\n",
    "a length that is no number": HEAD + b"content-length: 1e3\r\n\r\n",
    "a length beyond all measure": HEAD + b"content-length: " + b"9" * 400 + b"\r\n\r\n",
    "length and chunks": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nzzz\r\n",
    "chunks that are none": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nhost: a\r\nthis is no header\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
    "a zero byte in the path": b"GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a path that is no UTF-8": b"GET /%ff%fe%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "an upgrade without a key": UPGRADE + b"\r\n",
    "an upgrade with a bad key": UPGRADE + b"sec-websocket-key: \xff\r\nsec-websocket-version: 13\r\n\r\n",
    "an upgrade with a bad version": UPGRADE + b"sec-websocket-key: a\r\nsec-websocket-version: 99\r\n\r\n",
    "an upgrade with bad protocols": UPGRADE + KEY + b"sec-websocket-protocol: ,,\xe9\r\n\r\n",
    "an upgrade with bad extensions": UPGRADE + KEY + b"sec-websocket-extensions: permessage-deflate; a=\x01\r\n\r\n",
    "an upgrade and a broken frame": UPGRADE + KEY + b"\r\n" + b"\xff\xff\xff\xff\xff\xff\xff\xff",
}


HALVES_OF_REQUESTS = {
    "nothing": b"",
    "half a line": b"POST /pay",
    "half a head": HEAD,
    "no body": HEAD + b"content-length: 100\r\n\r\n",
    "half a body": HEAD + b"content-length: 100\r\n\r\nhalf a bo",
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhel",
}


async def test_malformed_http_ends_its_own_connection_and_nothing_else() -> None:
    async with serving() as here:

        async def send(name: str, finish: bool) -> None:
            answer = await here.raw(HOSTILE[name], finish=finish)
            assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 500")), name

        for name in HOSTILE:  # one after the other first, so that a failure names who did it
            await send(name, True)
            assert here.ref.incarnation == 1, name
            assert (await here.browser.get("/healthz")).status_code == 200, name
        async with trio.open_nursery() as nursery:
            for name in HOSTILE:
                nursery.start_soon(send, name, False)
        await here.assert_unharmed()


async def test_half_a_request_is_waited_for_only_so_long() -> None:
    async with serving() as here:

        async def send(name: str, finish: bool) -> None:
            answer = await here.raw(HALVES_OF_REQUESTS[name], finish=finish)
            assert answer == b"" or answer.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400")), name

        async with trio.open_nursery() as nursery:
            for name in HALVES_OF_REQUESTS:
                nursery.start_soon(send, name, True)
                nursery.start_soon(send, name, False)
        await here.assert_unharmed()


async def test_a_slow_sender_of_a_body_gets_408_however_busy_it_looks() -> None:
    async with serving() as here:
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream("127.0.0.1", here.port)
            await stream.send_all(HEAD + b"content-length: 4000\r\n\r\n")
            answer = b""

            async def drip() -> None:
                with trio.move_on_after(5):
                    try:
                        while True:
                            await stream.send_all(b"x")
                            await trio.sleep(0.02)  # rule-ok: a slow sender is what is tested
                    except trio.BrokenResourceError:
                        pass

            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(drip)
                answer = await stream.receive_some()
                nursery.cancel_scope.cancel()
            assert answer.startswith(b"HTTP/1.1 408")
        await here.assert_unharmed()


async def test_many_slow_connections_leave_room_for_a_good_one() -> None:
    async with serving() as here:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(here.raw, b"POST /payments/stripe HT")
            await trio.testing.wait_all_tasks_blocked()
            assert (await here.browser.get("/healthz")).status_code == 200
        await here.assert_unharmed()


async def test_a_head_that_is_too_large_gets_431() -> None:
    async with serving() as here:
        answer = await here.raw(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 5000 + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431")
        answer = await here.raw(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nhost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431")
        await here.assert_unharmed()


async def test_beyond_its_connections_it_hangs_up_at_once() -> None:
    async with serving(attrs.evolve(QUICK, max_connections=2)) as here:
        first, second = [await trio.open_tcp_stream("127.0.0.1", here.port) for _ in range(2)]
        async with first, second:
            assert await here.raw(b"") == b""
        with trio.fail_after(10):
            while True:
                try:
                    assert (await here.browser.get("/healthz")).status_code == 200
                except httpx.HTTPError:
                    continue
                break


async def test_a_body_that_is_or_says_too_large_gets_413_unread() -> None:
    async with serving() as here:
        assert (await here.browser.post("/payments/stripe", content=b"x" * 4097)).status_code == 413
        said = await here.raw(HEAD + b"content-length: 99999999\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 413")
        chunks = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        sent = await here.raw(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks * 2)
        assert sent.startswith(b"HTTP/1.1 413")
        await here.assert_unharmed()


async def test_a_source_that_asks_too_often_gets_429_and_when_to_come_back() -> None:
    async with serving(attrs.evolve(QUICK, rate=0.01, burst=3)) as here:
        answers = [await here.browser.get("/healthz") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert 90 <= int(answers[-1].headers["retry-after"]) <= 101


async def test_beyond_its_requests_at_a_time_the_next_one_gets_503_and_when_to_come_back() -> None:
    async with serving(attrs.evolve(QUICK, max_requests=1, request_seconds=60.0, head_seconds=60.0)) as here:
        stream = await trio.open_tcp_stream("127.0.0.1", here.port)
        async with stream:
            await stream.send_all(HEAD + b"content-length: 100\r\n\r\n")
            with trio.fail_after(10):
                while (answer := await here.browser.get("/healthz")).status_code == 200:
                    pass
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json() == {"error": "a limit of the gateway: at_once"}
            for_a_front_end = await here.browser.get("/shop/v1/plans")
            assert for_a_front_end.headers["content-type"] == "application/problem+json"
            assert for_a_front_end.json()["status"] == 503
        with trio.fail_after(10):
            while (await here.browser.get("/healthz")).status_code == 503:
                pass


async def test_every_limit_that_a_front_end_meets_is_told_as_a_problem() -> None:
    async with serving(attrs.evolve(QUICK, rate=0.01, burst=4)) as here:
        slow = b"PUT /shop/v1/customers/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf"
        assert (await here.raw(slow)).startswith(b"HTTP/1.1 408") and QUICK.request_seconds < 1
        answers = [
            await here.browser.put("/shop/v1/customers/1", content=b"x" * 4097),
            await here.browser.get("/shop/v1/plans", headers={"x": "a" * 1990}),
            await here.browser.get("/shop/v1/plans"),
            await here.browser.get("/shop/v1/plans"),
        ]
        assert [answer.status_code for answer in answers] == [413, 431, 404, 429]
        for answer in answers:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code


async def test_a_taken_port_refuses_the_start_and_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.RaisesGroup(StartRefused, flatten_subgroups=True, allow_unwrapped=True) as refused:
            async with serving(GatewaySettings(port=port)):
                pass
    error = unwrap_group(refused.value)
    assert isinstance(error, StartRefused)
    assert error.exit_code == os.EX_UNAVAILABLE
    assert "gateway.port" in str(error)


HALVES = {
    "payments.telegram.webhook_secret": PaymentSettings(telegram=TelegramPaymentSettings(token=Secret("1:a"))),
    "payments.yookassa.shop_id": PaymentSettings(yookassa=YooKassaSettings(secret_key=Secret("k"))),
    "payments.yookassa.return_url": PaymentSettings(yookassa=YooKassaSettings(secret_key=Secret("k"), shop_id="1")),
    "payments.yookassa.networks": PaymentSettings(
        yookassa=YooKassaSettings(secret_key=Secret("k"), shop_id="1", return_url="https://a", networks=("nowhere",))
    ),
    "payments.stripe.secret_key": PaymentSettings(stripe=StripeSettings(webhook_secret=Secret("k"))),
    "payments.stripe.webhook_secret": PaymentSettings(stripe=StripeSettings(secret_key=Secret("k"))),
    "payments.stripe.success_url": PaymentSettings(
        stripe=StripeSettings(secret_key=Secret("k"), webhook_secret=Secret("k"))
    ),
}


@pytest.mark.parametrize("setting", HALVES)
async def test_a_provider_configured_by_half_refuses_the_start_and_names_the_setting(setting: str) -> None:
    with pytest.RaisesGroup(StartRefused, flatten_subgroups=True, allow_unwrapped=True) as refused:
        async with serving(payments=HALVES[setting]):
            pass
    error = unwrap_group(refused.value)
    assert isinstance(error, StartRefused)
    assert error.exit_code == os.EX_CONFIG
    assert setting in str(error)
