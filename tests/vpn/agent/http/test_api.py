"""The agent's interface over real HTTP: generations, refusals, pages, a full sync."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from uuid import UUID

import attrs
import httpx
import pytest
import trio

from runtime.http import new_client
from tests.run_queue import PATIENCE, at_most
from tests.vpn.agents import TOKEN, RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_until_cut
from vpn.digest import digest
from vpn.errors import NodeConflict, NodeRefused, NodeUnauthorized, TunnelError
from vpn.node.wire import spec_to_json
from vpn.protocol import FLOW_VISION, KeySpec, KeyState
from vpn.xray.tunnel import open_tunnel


def raw(agent: RunningAgent, token: str | None = TOKEN) -> httpx.AsyncClient:
    """A client that sends what it is told."""
    return new_client(agent.url, headers={} if token is None else {"authorization": f"Bearer {token}"})


def code_of(response: httpx.Response) -> object:
    """The machine-readable reason of an error."""
    return response.json()["error"]["code"]


async def test_a_repeated_put_changes_nothing_and_is_confirmed_again(agent: RunningAgent) -> None:
    spec = key("customer")
    async with agent.client() as client:
        assert (await client.put(spec)).created
        before = await client.state()
        again = await client.put(spec)
        assert not again.created and again.state is KeyState.SERVING
        assert (await client.state()).sequence == before.sequence


async def test_a_late_put_after_a_removal_is_refused(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer", generation=5)
    async with agent.client() as client:
        await client.put(spec)
        await client.remove("customer", 5)
        for generation in (5, 4):
            with pytest.raises(NodeConflict) as caught:
                await client.put(attrs.evolve(spec, generation=generation))
            assert caught.value.generation == 5
        async with open_tunnel(agent.link(spec)) as tunnel:
            with pytest.raises(TunnelError):
                await tunnel.fetch(origin.url)
            await client.put(attrs.evolve(spec, generation=6))
            assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_a_removal_that_overtakes_its_put_still_refuses_it(agent: RunningAgent) -> None:
    async with agent.client() as client:
        assert not (await client.remove("customer", 3)).existed
        with pytest.raises(NodeConflict):
            await client.put(key("customer", generation=3))
        assert await client.get("customer") is None


async def test_a_late_removal_does_not_touch_a_newer_key(agent: RunningAgent) -> None:
    async with agent.client() as client:
        await client.put(key("customer", generation=4))
        with pytest.raises(NodeConflict) as caught:
            await client.remove("customer", 3)
        assert caught.value.generation == 4
        found = await client.get("customer")
        assert found is not None and found.state is KeyState.SERVING


async def test_duplicate_changes_at_once_end_in_one(agent: RunningAgent) -> None:
    spec = key("customer")
    created = []
    async with agent.client() as client:

        async def put() -> None:
            created.append((await client.put(spec)).created)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(put)
        assert sorted(created) == [False] * 9 + [True]
        assert (await client.state()).count == 1


async def test_changes_of_one_key_in_any_order_end_with_the_greatest_generation(
    agent: RunningAgent, origin: Origin
) -> None:
    specs = [key("customer", generation=generation) for generation in range(1, 9)]
    async with agent.client() as client:

        async def put(spec: KeySpec) -> None:
            with contextlib.suppress(NodeConflict):  # overtaken
                await client.put(spec)

        async with trio.open_nursery() as nursery:
            for spec in (*specs[::2], *reversed(specs)):
                nursery.start_soon(put, spec)
        found = await client.get("customer")
        assert found is not None and found.spec == specs[-1] and found.state is KeyState.SERVING
    async with open_tunnel(agent.link(specs[-1])) as current, open_tunnel(agent.link(specs[0])) as old:
        assert (await current.fetch(origin.url)).body == PAGE
        with pytest.raises(TunnelError):
            await old.fetch(origin.url)


async def test_a_new_uuid_cuts_whoever_still_uses_the_old_one(agent: RunningAgent, origin: Origin) -> None:
    old = key("customer")
    async with agent.client() as client, open_tunnel(agent.link(old)) as tunnel:
        await client.put(old)
        async with open_stream(tunnel, origin) as stream:
            await client.put(key("customer", generation=2))
            with at_most(1):
                await read_until_cut(stream)
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)


async def test_a_uuid_can_move_to_another_key_and_serves_there(agent: RunningAgent, origin: Origin) -> None:
    first = key("first")
    second = attrs.evolve(first, key_id="second")
    async with agent.client() as client:
        await client.put(first)
        with pytest.raises(NodeRefused, match="first"):
            await client.put(second)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.remove, "first", 1)
            nursery.start_soon(put_until_taken, client.put, second)
        async with open_tunnel(agent.link(second)) as tunnel:
            assert (await tunnel.fetch(origin.url)).body == PAGE


async def put_until_taken(put: object, spec: KeySpec) -> None:
    """Put until the UUID is free."""
    assert callable(put)
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await put(spec)
            except NodeRefused:
                continue
            return


async def test_uuids_that_xray_takes_for_equal_are_refused(agent: RunningAgent) -> None:
    spec = key("customer", uuid=UUID("11111111-1111-4111-8111-111111111111"))
    twin = key("twin", uuid=UUID("11111111-1111-4fff-8111-111111111111"))
    assert twin.uuid.bytes[:6] == spec.uuid.bytes[:6] and twin.uuid.bytes[8:] == spec.uuid.bytes[8:]
    async with agent.client() as client:
        await client.put(spec)
        with pytest.raises(NodeRefused) as caught:
            await client.put(twin)
        assert caught.value.code == "uuid_taken"
        assert (await client.state()).count == 1


async def test_a_flow_that_cannot_work_here_is_refused(agent: RunningAgent) -> None:
    async with agent.client() as client:
        with pytest.raises(NodeRefused, match="REALITY"):
            await client.put(key("customer", flow=FLOW_VISION))
        with pytest.raises(NodeRefused, match="elsewhere"):
            await client.put(attrs.evolve(key("customer"), inbounds=("elsewhere",)))


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not json": (b"{", 400),
    "not utf-8": (b'{"uuid": "\xff"}', 400),
    "nested too deep": (b"[" * 60_000, 400),
    "a list": (b"[]", 422),
    "no uuid": (b'{"generation": 1}', 422),
    "a uuid that is none": (b'{"uuid": "not-a-uuid", "generation": 1}', 422),
    "a uuid without dashes": (b'{"uuid": "11111111111141118111111111111111", "generation": 1}', 422),
    "a bogus flow": (b'{"uuid": "11111111-1111-4111-8111-111111111111", "flow": "bogus", "generation": 1}', 422),
    "no generation": (b'{"uuid": "11111111-1111-4111-8111-111111111111"}', 422),
    "generation true": (b'{"uuid": "11111111-1111-4111-8111-111111111111", "generation": true}', 422),
    "generation negative": (b'{"uuid": "11111111-1111-4111-8111-111111111111", "generation": -1}', 422),
    "generation huge": (
        b'{"uuid": "11111111-1111-4111-8111-111111111111", "generation": 1' + b"0" * 400 + b"}",
        422,
    ),
    "expiry as text": (
        b'{"uuid": "11111111-1111-4111-8111-111111111111", "generation": 1, "expires_at": "soon"}',
        422,
    ),
    "expiry beyond time": (
        b'{"uuid": "11111111-1111-4111-8111-111111111111", "generation": 1, "expires_at": 99999999999999}',
        422,
    ),
    "an unknown field": (b'{"uuid": "11111111-1111-4111-8111-111111111111", "generation": 1, "admin": true}', 422),
    "another key id": (
        b'{"key_id": "other", "uuid": "11111111-1111-4111-8111-111111111111", "generation": 1}',
        422,
    ),
    "too large": (b" " * 70_000, 413),
}


async def test_hostile_bodies_are_refused_and_change_nothing(agent: RunningAgent) -> None:
    async with raw(agent) as http, agent.client() as client:
        for name, (body, status) in BODIES.items():
            response = await http.put("/v1/users/customer", content=body)
            assert response.status_code == status, (name, response.text)
            assert response.json()["error"]["message"], name
        assert (await client.state()).sequence == 0


LARGE: dict[str, tuple[str, bytes, int]] = {
    "a batch just small enough": ("/v1/batch", b'{"changes": []}'.ljust(1024 * 1024), 200),
    "a batch too large": ("/v1/batch", b'{"changes": []}'.ljust(1024 * 1024 + 1), 413),
    "a batch of too many": ("/v1/batch", b'{"changes": [%s]}' % b",".join([b"1"] * 1001), 422),
    "a sync with a line too long": ("/v1/sync", b" " * 9000 + b"\n", 413),
}


async def test_bodies_larger_than_their_request_may_have_are_refused_and_change_nothing(agent: RunningAgent) -> None:
    async with raw(agent) as http, agent.client() as client:
        for name, (path, body, status) in LARGE.items():
            response = await http.post(path, content=body)
            assert response.status_code == status, (name, response.text)
        assert (await client.state()).sequence == 0


@pytest.mark.parametrize("key_id", ["%20", "UPPER", "a%2Fb", "a" * 65, "regexp:.*", "a%00b", ".hidden"])
async def test_key_ids_that_xray_would_confuse_are_refused(agent: RunningAgent, key_id: str) -> None:
    body = json.dumps({"uuid": "11111111-1111-4111-8111-111111111111", "generation": 1}).encode()
    async with raw(agent) as http, agent.client() as client:
        assert (await http.put(f"/v1/users/{key_id}", content=body)).status_code in (400, 404, 422)
        assert (await http.delete(f"/v1/users/{key_id}?generation=1")).status_code in (400, 404, 422)
        assert (await client.state()).sequence == 0


async def test_an_empty_key_id_is_no_key(agent: RunningAgent) -> None:
    async with raw(agent) as http:
        assert (await http.put("/v1/users/", content=b"{}")).status_code in (307, 404, 405)


ROUTES = [
    ("GET", "/v1/users"),
    ("GET", "/v1/users/customer"),
    ("PUT", "/v1/users/customer"),
    ("DELETE", "/v1/users/customer?generation=1"),
    ("POST", "/v1/users/customer/kick"),
    ("GET", "/v1/state"),
    ("POST", "/v1/batch"),
    ("POST", "/v1/sync"),
    ("GET", "/v1/usage"),
    ("PUT", "/v1/clock"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/nowhere"),
]


async def test_nothing_is_answered_without_the_token(agent: RunningAgent) -> None:
    wrong = [None, "wrong-token", TOKEN + "x", TOKEN[:-1], f"{TOKEN} {TOKEN}"]
    for token in wrong:
        async with raw(agent, token) as http:
            for method, path in ROUTES:
                response = await http.request(method, path, content=b"{}" if method != "GET" else None)
                assert response.status_code == 401, (token, method, path)
                assert response.headers["www-authenticate"] == "Bearer"
    async with raw(agent, None) as http:
        basic = await http.get("/v1/state", headers={"authorization": f"Basic {TOKEN}"})
        twice = await http.get("/v1/state", headers=[("authorization", f"Bearer {TOKEN}")] * 2)
        assert basic.status_code == twice.status_code == 401
    async with agent.client("wrong-token-entirely") as client:
        with pytest.raises(NodeUnauthorized, match="token"):
            await client.state()


async def test_bytes_that_are_not_http_harm_nobody(agent: RunningAgent) -> None:
    host, _, port = agent.url.removeprefix("http://").partition(":")
    upgrade = (
        f"GET /v1/state HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, int(port)) as unfinished:
        await unfinished.send_all(b"GET")
    for sent in (b"\0" * 1000, b"\x16\x03\x01", upgrade.format("").encode(), upgrade.format("x").encode()):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            with trio.fail_after(PATIENCE):
                await read_until_cut(stream)
    async with agent.client() as client:
        assert (await client.state()).ready


async def test_no_path_or_query_is_an_internal_error(agent: RunningAgent) -> None:
    parts = [
        "",
        "..",
        "%00",
        "%ff",
        "users//",
        "users/%2e%2e",
        "users?after=%00",
        "users?after=%ff",
        "usage?after=%F0%9F",
        "usage?limit=" + "9" * 5000,
    ]
    async with raw(agent) as http, agent.client() as client:
        parts.append(f"usage?since={(await client.state()).boot_id}-{'9' * 5000}")
        for part in parts:
            for method in ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
                response = await http.request(method, f"/v1/{part}")
                assert response.status_code < 500, (method, part, response.text)


async def test_pages_follow_each_other_and_lose_nothing(agent: RunningAgent) -> None:
    names = [f"customer-{number:03}" for number in range(25)]
    async with agent.client() as client:
        for name in names:
            await client.put(key(name))
        found, after, pages = [], "", 0
        while True:
            page = await client.list(after, 10)
            found += [entry.spec.key_id for entry in page.keys]
            pages += 1
            if page.next is None:
                break
            after = page.next
        assert found == names and pages == 3
        assert [entry.spec.key_id async for entry in client.list_all(7)] == names
    async with raw(agent) as http:
        for limit in ("0", "-1", "10001", "ten", "1e3"):
            assert (await http.get(f"/v1/users?limit={limit}")).status_code == 422


async def test_the_digest_tells_an_equal_set_from_a_different_one(agent: RunningAgent) -> None:
    specs = [key(f"customer-{number}") for number in range(5)]
    async with agent.client() as client:
        for spec in specs:
            await client.put(spec)
        assert (await client.state()).digest == digest(specs)
        await client.remove("customer-3", 1)
        state = await client.state()
        assert state.digest == digest(spec for spec in specs if spec.key_id != "customer-3")
        assert (state.count, state.serving, state.last_generation) == (4, 4, 1)


async def test_a_sync_adds_changes_drops_and_keeps(agent: RunningAgent, origin: Origin) -> None:
    same, changed, dropped, added = key("same"), key("changed"), key("dropped"), key("added")
    async with agent.client() as client:
        for spec in (same, changed, dropped):
            await client.put(spec)
        renewed = key("changed", generation=2)
        async with open_tunnel(agent.link(dropped)) as tunnel, open_stream(tunnel, origin) as stream:
            outcome = await client.sync([same, renewed, added])
            with at_most(1):
                await read_until_cut(stream)
        assert (outcome.added, outcome.changed, outcome.removed, outcome.unchanged) == (1, 1, 1, 1)
        assert outcome.refused == ()
        assert (await client.state()).digest == digest([same, renewed, added])
        again = await client.sync([same, renewed, added])
        assert (again.added, again.changed, again.removed, again.unchanged) == (0, 0, 0, 3)


async def test_a_sync_keeps_what_came_after_it_was_read(agent: RunningAgent) -> None:
    async with agent.client() as client:
        await client.put(key("old"))
        since = (await client.state()).sequence
        await client.put(key("new"))
        assert (await client.sync([], unchanged_since=since)).removed == 1
        assert [entry.spec.key_id async for entry in client.list_all()] == ["new"]


async def test_a_sync_with_one_unreadable_line_changes_nothing(agent: RunningAgent) -> None:
    async with raw(agent) as http, agent.client() as client:
        await client.put(key("customer"))
        good = json.dumps(spec_to_json(key("good"))).encode()
        for bad in (b"{", b'{"key_id": ""}', good, b"x" * 9000):
            response = await http.post("/v1/sync", content=good + b"\n" + bad + b"\n")
            assert response.status_code in (413, 422), response.text
        assert [entry.spec.key_id async for entry in client.list_all()] == ["customer"]


async def test_a_large_sync_to_an_empty_node_serves_every_key(agent: RunningAgent, origin: Origin) -> None:
    specs = [key(f"customer-{number}") for number in range(2000)]
    async with agent.client() as client:
        with trio.fail_after(20):
            outcome = await client.sync(specs)
        assert (outcome.added, outcome.refused) == (2000, ())
        state = await client.state()
        assert (state.serving, state.pending) == (2000, 0)
        assert state.digest == digest(specs)
    async with open_tunnel(agent.link(specs[1234])) as tunnel:
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_a_kick_cuts_and_lets_come_back(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client, open_tunnel(agent.link(spec)) as tunnel:
        await client.put(spec)
        async with open_stream(tunnel, origin) as stream:
            assert (await client.kick("customer")).cut == 1
            with at_most(1):
                await read_until_cut(stream)
        assert (await tunnel.fetch(origin.url)).body == PAGE
        with pytest.raises(NodeRefused):
            await client.kick("nobody")


async def test_usage_counts_a_customers_bytes_and_never_resets(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client, open_tunnel(agent.link(spec)) as tunnel:
        await client.put(spec)
        await client.put(key("idle"))
        await tunnel.fetch(origin.url)
        first = await client.usage()
        second = await client.usage()
        (counted,) = first.users
        assert counted.key_id == "customer" and counted.downlink > len(PAGE) and counted.uplink > 0
        assert second.users[0].downlink >= counted.downlink
        assert first.boot_id == (await client.state()).boot_id


async def test_metrics_are_prometheus_text_without_secrets(agent: RunningAgent, origin: Origin) -> None:
    spec, ended = key("customer"), key("ended", expires_at=datetime.fromtimestamp(1, UTC))
    async with agent.backend() as client, raw(agent) as http, open_tunnel(agent.link(spec)) as tunnel:
        await client.put(spec)
        await client.put(ended)
        await client.remove("ended", 1)
        async with open_stream(tunnel, origin):
            text = (await http.get("/metrics")).text
    for line in (
        'atlas_node_keys{state="serving"} 1',
        'atlas_node_changes_total{kind="put"} 2',
        'atlas_node_changes_total{kind="remove"} 1',
        "atlas_node_ready 1",
        "atlas_node_connections 1",
        "atlas_node_customers_connected 1",
        "atlas_node_changes_refused 0",
        "atlas_node_grace_seconds 0",
    ):
        assert line in text
    assert 'atlas_node_info{agent="' in text
    assert str(spec.uuid) not in text and TOKEN not in text
