"""What is true of one node is compared and repaired there, whatever happens to the others, to customers and to backups."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.keys.events import EndedRemoved, SurplusRemoved
from actors.nodes.trouble import WRONG_KEYS
from db.keys.placements import NodeKeys, wrong_keys
from db.keys.reissue import request_reissue
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.vpn.agents import gone, key
from tests.vpn.node.faulty_proxy import faulty_proxy
from tests.vpn.origin import PAGE, Origin, origin_server
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.errors import TunnelError
from vpn.link import VlessLink
from vpn.protocol import KeySpec
from vpn.xray.tunnel import open_tunnel


@pytest.fixture
async def site() -> AsyncIterator[Origin]:
    """A web server that only loopback reaches."""
    async with origin_server() as serving:
        yield serving


async def serve(harness: NodeHarness, *telegram_ids: int) -> list[str]:
    """Customers whose keys are live everywhere; returns the ids of the keys."""
    for telegram_id in telegram_ids:
        await harness.buy(telegram_id)
    for telegram_id in telegram_ids:
        await harness.until_status(telegram_id, "active")
    return [(await harness.key(telegram_id)).key_id for telegram_id in telegram_ids]


async def link(harness: NodeHarness, telegram_id: int, node: str) -> VlessLink:
    """The customer's link to one node."""
    found = await harness.key(telegram_id)
    return harness.agents[node].link(KeySpec(found.key_id, found.uuid))


async def passes(link: VlessLink, site: Origin) -> bool:
    """Whether a customer's packets go through."""
    async with open_tunnel(link) as tunnel:
        try:
            return (await tunnel.fetch(site.url, within=5)).body == PAGE
        except TunnelError:
            return False


async def wrong(harness: NodeHarness) -> dict[str, NodeKeys]:
    """What the database says of each node."""
    return {found.node: found for found in await harness.run(wrong_keys)}


async def test_a_node_gets_back_all_it_lost_while_another_is_away_and_keys_are_renewed(
    database_dsn: str, tmp_path: Path, site: Origin
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile()
        await harness.node("oslo")
        await harness.node("rome")
        proxy = await harness.node_behind_proxy("bern")
        ids = await serve(harness, *range(1, 7))
        await harness.agents["rome"].kill()
        for renewed in (1, 2):
            await harness.buy(renewed, charge="renewal")

        async def is_renewed() -> bool:
            rows = (
                "SELECT count(*) FROM key_placements p JOIN vpn_keys k ON k.id = p.key_id WHERE applied_generation >= 2"
            )
            return await harness.value(rows) == 4

        await harness.until(is_renewed)
        assert [(await harness.key(renewed)).status for renewed in (1, 2)] == ["pending"] * 2
        await harness.lose("bern", *ids)
        proxy.refused = "P"  # puts and posts: it takes no change
        assert await harness.look(node="bern") != "drifted", "nothing could be put back"
        found = await wrong(harness)
        assert (found["bern"].missing, found["oslo"].wrong) == (6, 0), "it is said of this node, and how many"
        assert sum(" bern had it, and was seen without it " in line for line in await harness.at_rest()) == 6
        assert not await passes(await link(harness, 1, "bern"), site)
        address = harness.pool.system.address("node.bern")

        async def is_said() -> bool:
            return any((trouble.kind, trouble.blocks) == ("keys", False) for trouble in address.troubles())

        await harness.until(is_said)
        assert "of its keys 6 it had and does not have any more" in address.readiness[1]
        assert WRONG_KEYS.labels("bern", "missing").value == 6
        await harness.buy(3, charge="renewal")  # a renewal that meets the node without its keys
        proxy.refused = None
        # a node that takes changes again wakes the worker as well: whose look put them back is not told apart
        assert await harness.look(node="bern") in ("drifted", "equal")
        assert sorted(await harness.listed("bern")) == sorted(ids)
        for telegram_id in (1, 3, 6):
            assert await passes(await link(harness, telegram_id, "bern"), site)
        assert (await wrong(harness))["bern"].wrong == 0
        assert (await harness.key(1)).status == "pending", "rome does not have it yet"
        await harness.look("equal", node="bern")
        await harness.agent("rome")

        async def is_at_rest() -> bool:
            return await harness.at_rest() == []

        await harness.until(is_at_rest)

        async def is_well() -> bool:
            return address.readiness == (True, "")

        await harness.until(is_well)


async def test_a_node_from_a_backup_lets_go_at_once_of_whoever_ended_and_payers_pass(
    database_dsn: str, tmp_path: Path, site: Origin
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.fast_expiry()
        # nothing of a stranger may go: what goes is known
        await harness.reconcile(removals=0, surplus_floor=100, grace=3600.0)
        await harness.node("oslo")
        await harness.node("rome")
        ids = await serve(harness, 1, 2, 3, 4)
        ended = [await link(harness, telegram_id, "oslo") for telegram_id in (2, 3, 4)]
        await harness.put_stranger("oslo", key("stranger"))
        agent = harness.agents["oslo"]
        backup = tmp_path / "backup"
        shutil.copytree(agent.directory, backup, ignore=shutil.ignore_patterns("*.sock"))
        reissued = await harness.run(request_reissue, 4, actor="test", idempotency_key="r-1")
        harness.wake("activation")
        await harness.revoke(2)
        await harness.until_status(2, "removed")

        async def is_replaced() -> bool:
            return await harness.value("SELECT count(*) FROM vpn_keys WHERE activation_status = 'removed'") == 2

        await harness.until(is_replaced)
        await harness.agents["rome"].kill()
        await harness.revoke(3)

        async def is_off_oslo() -> bool:
            return ids[2] not in await harness.listed("oslo")

        await harness.until(is_off_oslo)
        assert (await harness.key(3)).status == "removing", "rome may still have it"
        [xray] = agent.xray_pids()
        await agent.kill()
        await gone(xray)
        shutil.rmtree(agent.directory)
        shutil.copytree(backup, agent.directory)
        assert (await harness.agent("oslo")).url == agent.url

        async def is_as_wanted() -> bool:
            return sorted(await harness.listed("oslo")) == sorted([ids[0], reissued, "stranger"])

        await harness.until(is_as_wanted)
        assert not any([await passes(each, site) for each in ended])
        assert await passes(await link(harness, 1, "oslo"), site)
        assert await passes(await link(harness, 4, "oslo"), site)
        said = [event for event in harness.pool.events if isinstance(event, EndedRemoved | SurplusRemoved)]
        assert [(type(event), event.node) for event in said] == [(EndedRemoved, "oslo")]
        assert await harness.value("SELECT array_agg(key_id) FROM key_sightings") == ["stranger"]


async def test_whoever_uses_a_key_that_came_back_with_a_backup_is_cut_and_nobody_else(
    database_dsn: str, tmp_path: Path, site: Origin
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.fast_expiry()
        await harness.reconcile()
        await harness.node("oslo")
        await serve(harness, 1, 2)
        before = (await harness.listed("oslo"))[(await harness.key(2)).key_id].spec
        ended, kept = await link(harness, 2, "oslo"), await link(harness, 1, "oslo")
        await harness.revoke(2)
        await harness.until_status(2, "removed")
        await harness.put_stranger("oslo", key(before.key_id, uuid=before.uuid, generation=before.generation + 7))
        async with (
            open_tunnel(ended) as ended_tunnel,
            open_tunnel(kept) as kept_tunnel,
            open_stream(ended_tunnel, site) as cut,
            open_stream(kept_tunnel, site) as stream,
        ):
            await harness.look("drifted")
            await read_until_cut(cut)
            await read_more(stream, 50)
        await harness.look("equal")


async def test_a_node_that_cannot_list_is_told_of_every_key_that_ended_whatever_the_floor(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.fast_expiry()
        await harness.reconcile(surplus_floor=0, surplus_share=0.0)
        agent = await harness.agent("oslo")
        async with faulty_proxy(agent.url) as proxy:
            proxy.unknown = (b"GET /v1/users?",)
            await harness.node("oslo", proxy.url)
            ids = await serve(harness, 1, 2, 3)
            specs = {name: found.spec for name, found in (await harness.listed("oslo")).items()}
            for telegram_id in (2, 3):
                await harness.revoke(telegram_id)
                await harness.until_status(telegram_id, "removed")
            for name in ids[1:]:
                again = key(name, uuid=specs[name].uuid, generation=specs[name].generation + 7)
                await harness.put_stranger("oslo", again)
            await harness.look("told again")
            assert list(await harness.listed("oslo")) == ids[:1]
            await harness.look("equal")
