"""The limits that every request to an agent passes first."""

from __future__ import annotations

import contextlib

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.config import Secret
from vpn.agent.config.settings import HttpSettings
from vpn.agent.http.auth import Gate
from vpn.agent.http.requests import MAX_BODY, SLOW_BODY, BadRequest, read_body, read_lines

LIMITS = HttpSettings()
TOKEN = "a-token-for-tests-only"
WITH_TOKEN = {"authorization": f"Bearer {TOKEN}"}


async def answer_slowly(_: Request) -> Response:
    """Never."""
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def answer(_: Request) -> Response:
    """At once."""
    return PlainTextResponse("done")


def client() -> httpx.AsyncClient:
    """A client of a gate, without a network between them."""
    app = Starlette(routes=[Route("/slow", answer_slowly), Route("/", answer)])
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(Gate(app, Secret(TOKEN), LIMITS, lambda _: None)), base_url="http://node"
    )


async def test_beyond_the_limit_requests_are_told_to_come_back_and_others_are_not_delayed(
    autojump_clock: MockClock,
) -> None:
    autojump_clock.autojump_threshold = float("inf")
    async with client() as http, trio.open_nursery() as nursery:

        async def ask() -> None:
            await http.get("/slow", headers=WITH_TOKEN, timeout=None)

        for _ in range(LIMITS.max_requests):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        refused = await http.get("/", headers=WITH_TOKEN)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "busy"
        nursery.cancel_scope.cancel()
    async with client() as http:
        assert (await http.get("/", headers=WITH_TOKEN)).status_code == 200


async def test_requests_without_the_token_take_no_place_from_those_with_it() -> None:
    async with client() as http:
        for _ in range(LIMITS.max_requests + 1):
            assert (await http.get("/slow")).status_code == 401
        assert (await http.get("/", headers=WITH_TOKEN)).text == "done"


async def test_a_request_that_takes_too_long_is_answered_so(autojump_clock: MockClock) -> None:
    async with client() as http:
        began = trio.current_time()
        late = await http.get("/slow", headers=WITH_TOKEN, timeout=None)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "too_slow")
        assert trio.current_time() - began == pytest.approx(LIMITS.request_seconds)


def request_of(*parts: bytes, pause: float = 0.0) -> Request:
    """A request whose body arrives in these parts, with a pause before each."""
    waiting = list(parts)

    async def receive() -> dict[str, object]:
        await trio.sleep(pause)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    return Request({"type": "http", "method": "PUT", "path": "/", "headers": []}, receive)


async def test_a_body_that_trickles_in_is_given_up(autojump_clock: MockClock) -> None:
    assert await read_body(request_of(b"a", b"b", pause=SLOW_BODY / 3)) == b"ab"
    with pytest.raises(BadRequest) as caught:
        await read_body(request_of(*[b"a"] * 10, pause=SLOW_BODY / 5))
    assert caught.value.status == 408


async def test_a_large_body_may_take_its_time_but_not_stand_still(autojump_clock: MockClock) -> None:
    slow = request_of(*[b"a\n"] * 10, pause=SLOW_BODY / 2)
    assert [line async for line in read_lines(slow)] == [b"a"] * 10
    async with contextlib.aclosing(read_lines(request_of(b"a\n", b"b\n", pause=SLOW_BODY * 2))) as lines:
        with pytest.raises(BadRequest) as caught:
            await anext(lines)
    assert caught.value.status == 408


async def test_a_body_is_given_up_as_soon_as_it_is_too_large(autojump_clock: MockClock) -> None:
    assert len(await read_body(request_of(b"x" * MAX_BODY))) == MAX_BODY
    with pytest.raises(BadRequest) as caught:
        await read_body(request_of(b"x" * MAX_BODY, b"y", b"never read"))
    assert caught.value.status == 413
