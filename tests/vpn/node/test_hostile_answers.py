"""A node may answer anything: whatever it says comes out of the client as a NodeError, and never as more than a page."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from runtime.config import Secret
from tests.vpn.agents import TOKEN, key
from vpn.errors import NodeConflict, NodeError, NodeProtocolError, NodeReadOnly
from vpn.node import wire
from vpn.node.caller import LONGEST_ANSWER
from vpn.node.client import AgentClient
from vpn.node.wire import WireError
from vpn.protocol import MAX_GENERATION

Answer = Callable[[trio.SocketStream], Awaitable[None]]


def says(body: bytes, status: str = "200 OK", *headers: str) -> Answer:
    """An answer with this body."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers])

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(head.encode() + b"\r\n\r\n" + body)

    return answer


async def endless(stream: trio.SocketStream) -> None:
    """An answer that never ends."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    part = b"10000\r\n" + b"[" * 65536 + b"\r\n"
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(part)


@asynccontextmanager
async def hostile(answer: Answer) -> AsyncIterator[AgentClient]:
    """A client of a server that answers everything so."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await answer(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with AgentClient("tested", url, Secret(TOKEN), within=10.0, repeats=0) as client:
            yield client
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says(b"[" * 200_000), id="deep"),
        pytest.param(says(b'{"a":' * 200_000), id="deep objects"),
        pytest.param(says(b"rubbish", "200 OK", "content-encoding: gzip"), id="not packed as it says"),
        pytest.param(says(gzip.compress(b"[" * LONGEST_ANSWER), "200 OK", "content-encoding: gzip"), id="packed"),
        pytest.param(says(b'{"count": ' + b"9" * 5000 + b"}"), id="long number"),
        pytest.param(says(b"\xff\xfe\x00"), id="no text"),
        pytest.param(says(b"", "500 Oops"), id="empty"),
        pytest.param(says(b'{"error": {"code": 7, "message": ["x"]}}', "500 Oops"), id="odd error"),
    ],
)
@pytest.mark.parametrize("ask", ["state", "list", "put", "batch", "usage"])
async def test_whatever_a_node_answers_is_a_node_error(answer: Answer, ask: str) -> None:
    async with hostile(answer) as client:
        with pytest.raises(NodeError):
            match ask:
                case "put":
                    await client.put(key("customer"))
                case "batch":
                    await client.batch([key("customer")])
                case _:
                    await getattr(client, ask)()


async def test_an_answer_that_does_not_end_is_cut_off() -> None:
    async with hostile(endless) as client:
        with pytest.raises(NodeProtocolError, match="longer than 16 MiB"):
            await client.state()


async def test_an_error_that_a_node_tells_is_fit_for_logs_and_the_database() -> None:
    told = {"error": {"code": "conflict", "message": "a\0b\x1b[31m\ud800" + "x" * 5000, "generation": MAX_GENERATION}}
    async with hostile(says(json.dumps(told).encode(), "409 Conflict")) as client:
        with pytest.raises(NodeConflict) as caught:
            await client.put(key("customer"))
    assert caught.value.text.isprintable() and len(caught.value.text) == 300
    assert caught.value.generation == -1, "nothing of ours could be newer than that"


async def test_a_full_disk_is_an_answer_of_its_own() -> None:
    told = {"error": {"code": "store_failed", "message": "no space left"}}
    async with hostile(says(json.dumps(told).encode(), "507 Insufficient Storage")) as client:
        with pytest.raises(NodeReadOnly, match="no space left"):
            await client.put(key("customer"))


async def test_an_answer_about_another_key_is_no_answer() -> None:
    told = {"key_id": "somebody", "generation": 1, "created": True, "state": "serving", "expires_at": None}
    async with hostile(says(json.dumps(told).encode())) as client:
        with pytest.raises(NodeProtocolError, match="another change"):
            await client.put(key("customer"))
    async with hostile(says(json.dumps({"outcomes": [{"applied": told}]}).encode())) as client:
        with pytest.raises(NodeProtocolError, match="another change"):
            await client.batch([key("customer")])


INBOUND = {"tag": "vless", "host": "vpn.example.org", "port": 443, "network": "tcp", "security": "none"}


@pytest.mark.parametrize(
    "change",
    [
        {"host": "not a host"},
        {"host": "a\0b"},
        {"host": "\ud800"},
        {"host": ""},
        {"port": 0},
        {"port": 65536},
        {"flow": "bogus"},
        {"network": "pigeon"},
        {"security": "reality"},
        {"tag": ""},
        {"sni": "x" * 5000},
        {"fingerprint": "a\nb"},
    ],
)
def test_facts_of_which_no_link_can_be_made_are_refused_where_they_are_read(change: dict[str, object]) -> None:
    assert wire.inbound_from_json(INBOUND).host == "vpn.example.org"
    with pytest.raises(WireError):
        wire.inbound_from_json(INBOUND | change)


@pytest.mark.parametrize("now", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+00:00", "soon", 5])
def test_a_time_that_cannot_be_compared_is_refused(now: object) -> None:
    state: dict[str, object] = {"ready": True, "why": "broken\0", "capabilities": [], "inbounds": [INBOUND]}
    state |= dict.fromkeys(("count", "serving", "expired", "pending", "last_generation", "sequence"), 0)
    state |= dict.fromkeys(("agent_id", "boot_id", "agent_version", "xray_version", "digest"), "")
    assert wire.state_from_json(state | {"now": "2026-01-01T00:00:00+00:00"}).why == "broken\ufffd"
    with pytest.raises(WireError):
        wire.state_from_json(state | {"now": now})


def test_a_listed_key_of_a_generation_that_ours_could_not_outgrow_is_refused() -> None:
    told = wire.spec_to_json(key("customer", generation=MAX_GENERATION)) | {"state": "serving"}
    with pytest.raises(WireError, match="generation"):
        wire.key_from_json(told)
