"""The client's calls about many keys: batches, lists, counters, and nodes that lack them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import pytest
import trio

from runtime.http import Timeouts, new_client
from tests.run_queue import PATIENCE
from tests.vpn.agents import TOKEN, RunningAgent, key
from tests.vpn.node.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.vpn.node.test_client import client_of
from tests.vpn.origin import Origin
from vpn.digest import digest
from vpn.errors import NodeAmbiguous, NodeCannotList, NodeConflict, NodeRefused, NodeTooLarge, NodeUnreachable
from vpn.node.breaker import Breaker
from vpn.node.caller import AgentCaller
from vpn.protocol import CAN_BATCH, CAN_LIST, MAX_BATCH, Applied, KeySpec, KeyState, Removal, Removed
from vpn.xray.tunnel import open_tunnel


@pytest.fixture
async def proxy(agent: RunningAgent) -> AsyncIterator[FaultyProxy]:
    """A proxy in front of the agent."""
    async with faulty_proxy(agent.url) as serving:
        yield serving


async def test_a_batch_tells_each_changes_outcome_in_order(agent: RunningAgent) -> None:
    first, second = key("first"), key("second")
    async with agent.client() as client:
        await client.put(key("newer", generation=7))
        await client.put(second)
        outcomes = await client.batch(
            [
                first,
                attrs.evolve(key("twin"), uuid=first.uuid),
                Removal("newer", 6),
                Removal("never-there", 3),
                Removal("second", 1),
                attrs.evolve(second, key_id="third"),
                attrs.evolve(key("elsewhere"), inbounds=("elsewhere",)),
            ]
        )
        put, twin, newer, never, gone, moved, elsewhere = outcomes
        assert isinstance(put, Applied) and put.created and put.state is KeyState.SERVING
        assert isinstance(twin, NodeRefused) and twin.code == "uuid_taken"
        assert isinstance(newer, NodeConflict) and newer.generation == 7
        assert isinstance(never, Removed) and not never.existed
        assert isinstance(gone, Removed) and gone.existed
        assert isinstance(moved, Applied) and moved.state is KeyState.SERVING, "the UUID was free by then"
        assert isinstance(elsewhere, NodeRefused) and elsewhere.code == "unknown_inbound"
        assert {found.spec.key_id async for found in client.list_all()} == {"first", "newer", "third"}


async def test_a_batch_that_is_too_large_is_refused_before_it_is_sent(agent: RunningAgent) -> None:
    async with agent.client() as client:
        with pytest.raises(ValueError, match=str(MAX_BATCH)):
            await client.batch([Removal(f"customer-{number}", 1) for number in range(MAX_BATCH + 1)])
        with pytest.raises(ValueError, match="two changes"):
            await client.batch([key("customer"), Removal("customer", 1)])
        assert (await client.state()).sequence == 0


async def test_a_batch_whose_answer_is_lost_is_repeated_and_ends_the_same(proxy: FaultyProxy) -> None:
    specs = [key(f"customer-{number}") for number in range(50)]
    proxy.plan(Fault.LOSE_ANSWER)
    async with client_of(proxy.url) as client:
        outcomes = await client.batch(specs)
        assert all(isinstance(outcome, Applied) and not outcome.created for outcome in outcomes), (
            "done at the first try"
        )
        assert (await client.state()).digest == digest(specs)


async def test_a_node_that_cannot_list_says_so_and_is_never_taken_for_empty(proxy: FaultyProxy) -> None:
    proxy.unknown = (b"GET /v1/users?",)
    spec = key("customer")
    async with client_of(proxy.url) as client:
        await client.put(spec)
        with pytest.raises(NodeCannotList, match="no list"):
            await client.list()
        with pytest.raises(NodeCannotList):
            [found async for found in client.list_all()]
        assert (await client.state()).digest == digest([spec]), "the digest is what such a node is compared by"
        assert (await client.sync([spec, key("other")])).added == 1


async def test_a_node_without_batches_gets_the_changes_one_by_one(proxy: FaultyProxy) -> None:
    proxy.unknown = (b"POST /v1/batch",)
    async with client_of(proxy.url) as client:
        await client.put(key("newer", generation=2))
        await client.put(key("old"))
        put, refused, removed = await client.batch([key("customer"), key("newer"), Removal("old", 1)])
        assert isinstance(put, Applied) and isinstance(refused, NodeConflict) and isinstance(removed, Removed)
        assert [found.spec.key_id async for found in client.list_all()] == ["customer", "newer"]


async def test_what_a_node_can_do_is_told(agent: RunningAgent) -> None:
    async with agent.client() as client:
        state = await client.state()
        assert state.can(CAN_LIST) and state.can(CAN_BATCH) and not state.can("flying")


async def test_a_removal_is_found_done_by_the_nodes_memory_of_it(proxy: FaultyProxy) -> None:
    async with client_of(proxy.url) as client:
        await client.put(key("customer"))
    proxy.plan(Fault.LOSE_ANSWER)
    async with client_of(proxy.url, repeats=0) as client:
        assert (await client.remove("customer", 1)).key_id == "customer"
        with pytest.raises(NodeConflict):
            await client.put(key("customer"))
    proxy.plan(Fault.LOSE_REQUEST)
    async with client_of(proxy.url, repeats=0) as client:
        with pytest.raises(NodeAmbiguous):
            await client.remove("customer", 2)


async def test_a_repetition_that_cannot_be_sent_leaves_the_first_attempt_in_doubt(agent: RunningAgent) -> None:
    async with faulty_proxy(agent.url) as proxy, client_of(proxy.url, repeats=1) as client:
        proxy.plan(Fault.LOSE_ANSWER)
        proxy.last = 1
        with pytest.raises(NodeAmbiguous):
            await client.put(key("customer"))
    async with agent.client() as client:
        assert await client.get("customer") is not None, "it was done: nothing may say that it was not"


async def test_no_more_calls_run_than_allowed_and_waiting_says_nothing_about_the_node(
    proxy: FaultyProxy,
) -> None:
    proxy.plan(*[Fault.NO_ANSWER] * 4)
    guard = Breaker(trio.current_time, threshold=1)
    token = {"authorization": f"Bearer {TOKEN}"}
    async with new_client(proxy.url, headers=token) as http, trio.open_nursery() as nursery:
        caller = AgentCaller("tested", proxy.url, http, Timeouts(), 10.0, 0, 0.0, guard, 4)
        for _ in range(4):
            nursery.start_soon(caller.call, "state", "GET", "/v1/state")
        with trio.fail_after(PATIENCE):
            await proxy.until_seen(4)
        with pytest.raises(NodeUnreachable, match="not sent: 4 calls"):
            await caller.call("state", "GET", "/v1/state", within=0.1)
        assert (proxy.seen, guard.failures) == (4, 0)
        nursery.cancel_scope.cancel()


async def test_usage_since_a_mark_tells_only_whose_counters_moved(agent: RunningAgent, origin: Origin) -> None:
    specs = [key(f"customer-{number}") for number in range(3)]
    async with agent.client() as client:
        for spec in specs:
            await client.put(spec)
            await fetch(agent, spec, origin)
        first = await client.usage_all(page_size=2)
        assert [user.key_id for user in first.users] == ["customer-0", "customer-1", "customer-2"]
        assert (await client.usage(first.mark)).users == ()
        await fetch(agent, specs[1], origin)
        (moved,) = (await client.usage(first.mark)).users
        assert moved.key_id == "customer-1" and moved.downlink > first.users[1].downlink
        for mark in ("", "another-boot-7", "nonsense"):
            assert len((await client.usage(mark)).users) == 3, "a mark of another boot hides nothing"


async def fetch(agent: RunningAgent, spec: KeySpec, origin: Origin) -> None:
    """Use the key once."""
    async with open_tunnel(agent.link(spec)) as tunnel:
        await tunnel.fetch(origin.url)


async def test_a_body_limit_in_front_means_smaller_batches(agent: RunningAgent, proxy: FaultyProxy) -> None:
    """A web server's usual limit, scaled down: it answers a page of its own, and every change arrives all the same."""
    proxy.most = 4000
    specs = [key(f"key-{number:03}") for number in range(200)]
    async with client_of(proxy.url) as client:
        outcomes = await client.batch(specs)
        assert all(isinstance(outcome, Applied) and outcome.created for outcome in outcomes)
        assert [outcome.key_id for outcome in outcomes if isinstance(outcome, Applied)] == [
            spec.key_id for spec in specs
        ]
        found_out = proxy.too_large
        await client.batch(specs)
        assert proxy.too_large == found_out, "it remembers what fits"
        more = [*specs, key("more")]
        restored = await client.sync(more, unchanged_since=0)
        assert (restored.added, restored.unchanged, restored.removed) == (1, 200, 0)
        with pytest.raises(NodeTooLarge, match="a proxy in front"):
            await client.sync(more)
        assert (await client.state()).digest == digest(more)
        proxy.most = 10
        with pytest.raises(NodeTooLarge, match="1 MiB"):
            await client.put(key("even-one"))
