"""A node that talks rubbish is a node that is away: it ends nothing here, and the other nodes serve on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.nodes.links import working_links
from actors.nodes.messages import ListKeys
from actors.nodes.node import NodeActor, NodeAway
from db.tx import Tx
from runtime import Ref
from runtime.config import Secret
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.actors.nodes.lying_proxy import Lie, LyingProxy, lying_proxy
from tests.vpn.agents import TOKEN
from vpn.node.settings import NodeSettings
from vpn.protocol import MAX_GENERATION


@asynccontextmanager
async def workers(dsn: str, directory: Path) -> AsyncIterator[NodeHarness]:
    """The workers that tell nodes; no node yet."""
    async with node_harness(dsn, directory) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        yield started


def state(change: Callable[[dict[str, Any]], object]) -> Lie:
    """A lie about the node itself: `change` gets what it said and changes it in place."""

    def lie(request: str, answer: bytes) -> bytes:
        if not request.startswith("GET /v1/state"):
            return answer
        told = json.loads(answer)
        change(told)
        return json.dumps(told).encode()

    return lie


def facts(**changes: object) -> Lie:
    """A lie about the node's public facts."""

    def change(told: dict[str, Any]) -> None:
        for inbound in (*told["inbounds"], told["inbound"]):
            inbound.update(changes)

    return state(change)


async def refuse_a_boot(tx: Tx) -> None:
    """A rule of the database that what a node says may break."""
    await tx.execute("ALTER TABLE vpn_nodes ADD CONSTRAINT no_such_boot CHECK (boot_id <> 'refused')")


async def behind(
    harness: NodeHarness, name: str, lie: Lie | None = None, *, within: float = 5.0
) -> tuple[Ref, LyingProxy]:
    """A node's actor in front of a node that lies from the beginning; it fails the test if it crashes.

    `within` is the limit of a call to the node, in seconds.
    """
    agent = await harness.agent(name)
    proxy = await harness.stack.enter_async_context(lying_proxy(agent.url))
    proxy.lie = lie
    settings = NodeSettings(url=proxy.url, token=Secret(TOKEN), within=within)
    actor = NodeActor(
        name,
        settings,
        wakes=("activation",),
        probe_interval=0.1,
        first_pause=0.1,
        longest_pause=0.1,
    )
    return await harness.pool.system.start(actor, name=f"node.{name}"), proxy


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda _, __: b"[" * 200_000, id="deep"),
        pytest.param(lambda _, __: b'{"x": "' + b"y" * (17 << 20) + b'"}', id="long"),
        pytest.param(facts(host="a\0b"), id="nul"),
        pytest.param(facts(host="not a host"), id="host"),
        pytest.param(facts(flow="bogus"), id="flow"),
        pytest.param(state(lambda told: told.update(boot_id="a\0b")), id="boot"),
        pytest.param(state(lambda told: told.update(inbounds=[])), id="no inbound"),
    ],
)
async def test_a_node_that_talks_rubbish_is_away_and_comes_back_by_itself(
    database_dsn: str, tmp_path: Path, lie: Lie
) -> None:
    async with workers(database_dsn, tmp_path) as harness:
        ref, proxy = await behind(harness, "oslo", lie)

        async def is_away() -> bool:
            return any(isinstance(event, NodeAway) for event in harness.pool.events)

        await harness.until(is_away)
        assert (ref.incarnation, ref.address.readiness[0]) == (1, False)
        proxy.lie = None
        await harness.until_back("oslo")
        assert ref.incarnation == 1
        await harness.buy(1)
        await harness.until_status(1, "active")


async def test_what_the_database_refuses_of_a_node_makes_it_away_and_no_more(database_dsn: str, tmp_path: Path) -> None:
    async with workers(database_dsn, tmp_path) as harness:
        ref, proxy = await behind(harness, "oslo")
        await harness.until_back("oslo")
        await harness.run(refuse_a_boot)
        proxy.lie = state(lambda told: told.update(boot_id="refused"))

        async def is_away() -> bool:
            return any(isinstance(event, NodeAway) for event in harness.pool.events)

        await harness.until(is_away)
        assert "the database does not take" in ref.address.readiness[1]
        proxy.lie = None
        await harness.until_back("oslo")
        assert ref.incarnation == 1


async def test_a_node_that_claims_the_last_generation_there_is_breaks_no_worker(
    database_dsn: str, tmp_path: Path
) -> None:
    async with workers(database_dsn, tmp_path) as harness:

        def lie(request: str, answer: bytes) -> bytes:
            if request.startswith("PUT /v1/users/"):
                return json.dumps(
                    {"error": {"code": "conflict", "message": "newer\0", "generation": MAX_GENERATION}}
                ).encode()
            return answer

        _, proxy = await behind(harness, "oslo")
        await harness.node("rome")
        await harness.until_back("oslo")
        proxy.lie, proxy.status = lie, b"HTTP/1.1 409 Conflict"
        await harness.buy(1)

        async def is_shown() -> bool:
            return [node.name for node in (await harness.key(1)).nodes] == ["rome"]

        await harness.until(is_shown)
        proxy.lie = proxy.status = None
        await harness.value("UPDATE vpn_keys SET next_attempt_at = atlas_now() RETURNING 1")
        harness.wake("activation")
        await harness.until_status(1, "active")


async def test_calls_that_hang_in_every_slot_do_not_make_the_node_seem_away(database_dsn: str, tmp_path: Path) -> None:
    async with workers(database_dsn, tmp_path) as harness:
        ref, proxy = await behind(harness, "oslo", within=60.0)
        await harness.until_back("oslo")
        proxy.withheld = "GET /v1/users"
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(partial(ref.ask, ListKeys("", 10), within=60.0))

            async def every_slot_is_taken() -> bool:
                return proxy.held == 16

            await harness.until(every_slot_is_taken)
            seen = await harness.value("SELECT last_seen_at FROM vpn_nodes")

            async def is_seen_again() -> bool:
                return await harness.value("SELECT last_seen_at FROM vpn_nodes") != seen

            await harness.until(is_seen_again)
            assert proxy.held == 16, "it was seen only when a call had given up its slot"
            assert ref.address.inspect()["actor"]["calls"] == 16  # type: ignore[index]  # the actor's own facts
            assert ref.address.readiness[0]
            nursery.cancel_scope.cancel()


async def test_a_node_of_which_no_link_can_be_made_breaks_nobody_elses_links(database_dsn: str, tmp_path: Path) -> None:
    async with workers(database_dsn, tmp_path) as harness:
        await harness.node("oslo")
        await harness.node("rome")
        await harness.buy(1)
        await harness.until_status(1, "active")
        assert len(working_links(await harness.view(1))) == 2
        await harness.value(
            """UPDATE vpn_nodes SET endpoint = endpoint || '{"host": "not a host"}' WHERE name = 'oslo' RETURNING 1"""
        )
        assert [link.name for link in working_links(await harness.view(1))] == ["ATLAS rome"]
