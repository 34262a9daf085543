"""Every fault of a node, with real agents and a real database: afterwards the nodes have what is wanted, and no payer was cut."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from actors.health_conditions import ConditionBegan, ConditionEnded
from actors.key_events import KeyPostponed
from actors.node_events import CLOCK_SKEW, NodeAway, NodeBack
from actors.reconcile_events import PassStopped
from tests.actors.lying_proxy import LyingProxy, lists, loses, lying_proxy
from tests.actors.node_house import NodeHouse, node_house
from tests.vpn.agents import key
from tests.vpn.origin import PAGE, Origin, origin_server
from tests.vpn.streams import open_stream, read_more
from tests.vpn.test_agent_faults import limit_files, xray_of
from vpn.digest import expiry_seconds
from vpn.errors import TunnelError
from vpn.protocol import KeySpec
from vpn.tunnel import open_tunnel


@pytest.fixture
async def house(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHouse]:
    """Two nodes, and every worker."""
    async with node_house(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        await started.node("oslo")
        await started.node("rome")
        yield started


@pytest.fixture
async def lied(database_dsn: str, tmp_path: Path) -> AsyncIterator[tuple[NodeHouse, LyingProxy]]:
    """One node behind a proxy, and every worker."""
    async with node_house(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        agent = await started.agent("oslo")
        proxy = await started.stack.enter_async_context(lying_proxy(agent.url))
        await started.node("oslo", proxy.url)
        yield started, proxy


@pytest.fixture
async def site() -> AsyncIterator[Origin]:
    """A web server that only loopback reaches."""
    async with origin_server() as serving:
        yield serving


async def serve(house: NodeHouse, *telegram_ids: int) -> None:
    """Customers whose keys are live everywhere."""
    for telegram_id in telegram_ids:
        await house.buy(telegram_id)
    for telegram_id in telegram_ids:
        await house.until_status(telegram_id, "active")


async def converged(house: NodeHouse, *nodes: str) -> None:
    """Wait until everything is at rest; then the nodes have exactly the keys that are active, as the database has them: their
    agents, their Xrays, and packets, which pass with a key that is paid for and with none that ended."""

    async def is_at_rest() -> bool:
        return await house.at_rest() == []

    await house.until(is_at_rest)
    wanted: dict[str, Any] = {}
    for telegram_id in await house.value("SELECT array_agg(telegram_id) FROM customers"):  # type: ignore[attr-defined]  # a list
        view = await house.view(telegram_id)
        assert view.key is not None
        if view.key.status == "active":
            wanted[view.key.key_id] = (view.key.uuid, expiry_seconds(view.expires_at))
    for name in nodes:
        listed = await house.listed(name)
        assert {
            key_id: (found.spec.uuid, expiry_seconds(found.spec.expires_at)) for key_id, found in listed.items()
        } == wanted, name
        async with xray_of(house.agents[name]) as xray:
            users = {(user.email, user.uuid) for user in await xray.list_users("vless")}
        assert users == {(key_id, uuid) for key_id, (uuid, _) in wanted.items()}, name
    ended = await house.value("SELECT array_agg(uuid) FROM vpn_keys WHERE activation_status = 'removed'")
    async with origin_server() as site:
        for name in nodes:
            for key_id, (uuid, _) in [*wanted.items()][:1]:
                async with open_tunnel(house.agents[name].link(KeySpec(key_id, uuid))) as tunnel:
                    assert (await tunnel.fetch(site.url)).body == PAGE, name
            for uuid in [*(ended or [])][:1]:  # type: ignore[misc]  # a list, or none
                async with open_tunnel(house.agents[name].link(KeySpec("ended", UUID(str(uuid))))) as tunnel:
                    with pytest.raises(TunnelError):
                        await tunnel.fetch(site.url)
    assert await house.value("SELECT coalesce(max(attempts), 0) FROM vpn_keys") == 0


async def test_a_killed_xray_comes_back_with_every_key_and_the_node_is_looked_at_at_once(house: NodeHouse) -> None:
    await serve(house, 1, 2)
    before = (await house.state("oslo")).boot_id
    [xray] = house.agents["oslo"].xray_pids()
    os.kill(xray, signal.SIGKILL)

    async def is_looked_at() -> bool:
        seen = await house.value(
            "SELECT p.boot_id FROM reconcile_passes p JOIN vpn_nodes n ON n.id = node_id AND n.name = 'oslo'"
        )
        return seen not in (None, before)

    await house.until(is_looked_at)
    await converged(house, "oslo", "rome")


async def test_while_one_agent_is_dead_the_other_node_serves_buyers_at_once_and_nobody_there_is_cut(
    house: NodeHouse, site: Origin
) -> None:
    await serve(house, 1, 2)
    link = house.agents["rome"].link((await house.listed("rome"))[(await house.key(1)).key_id].spec)
    async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
        await house.agents["oslo"].kill()
        await house.buy(3)
        await house.revoke(2)

        async def is_shown() -> bool:
            return [node.name for node in (await house.key(3)).nodes] == ["rome"]

        await house.until(is_shown, within=10)
        assert (await house.key(3)).status == "pending"
        await read_more(stream, 50)
        await house.agent("oslo")
        await converged(house, "oslo", "rome")
        await read_more(stream, 50)
    assert [node.name for node in (await house.key(3)).nodes] == ["oslo", "rome"]


async def test_a_node_that_is_down_for_an_hour_costs_no_attempt_and_converges_when_it_is_back(house: NodeHouse) -> None:
    await serve(house, 1, 2)
    await house.agents["oslo"].kill()
    for minutes in (20, 60):
        await house.move_clock(minutes=minutes)
        await house.buy(minutes)
        house.wake("activation")
        house.wake("fast_expiry")
        await house.look("away")
    await house.revoke(2)
    assert await house.value("SELECT max(attempts) FROM vpn_keys") == 0
    assert await house.value("SELECT count(*) FROM cases") == 0
    assert [event for event in house.pool.events if isinstance(event, KeyPostponed)]
    await house.agent("oslo")
    await converged(house, "oslo", "rome")


async def test_keys_that_wait_for_a_node_are_due_at_once_when_it_is_back(house: NodeHouse) -> None:
    await serve(house, 1)
    await house.agents["oslo"].kill()
    await house.buy(2)

    async def is_postponed() -> bool:
        return bool([event for event in house.pool.events if isinstance(event, KeyPostponed)])

    await house.until(is_postponed)
    await house.value("UPDATE vpn_keys SET next_attempt_at = atlas_now() + interval '1 hour' RETURNING 1")
    await house.agent("oslo")
    await house.until_status(2, "active")
    await converged(house, "oslo", "rome")


async def test_a_list_that_fails_stops_the_pass_and_removes_nothing(lied: tuple[NodeHouse, LyingProxy]) -> None:
    house, proxy = lied
    await serve(house, 1, 2)
    await house.put_stranger("oslo", key("stranger"))
    await house.look("drifted")
    await house.move_clock(seconds=121)
    proxy.lie = lambda request, answer: b"<html>sorry</html>" if request.startswith("GET /v1/users?") else answer
    await house.look("failed")
    assert len(await house.listed("oslo")) == 3
    assert [event for event in house.pool.events if isinstance(event, PassStopped)]
    proxy.lie = None
    await house.look("drifted")
    await converged(house, "oslo")


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("empty", lists(lambda told: told.update(keys=[], next=None))),
        ("short", lists(lambda told: told.update(keys=told["keys"][1:]))),  # type: ignore[index]  # a list of keys
        ("changed", lists(lambda told: told["keys"][0].update(expires_at=1))),  # type: ignore[index]  # as above
    ],
)
async def test_a_list_that_contradicts_the_node_is_not_believed(
    lied: tuple[NodeHouse, LyingProxy], name: str, lie: Any
) -> None:
    house, proxy = lied
    await serve(house, 1, 2)
    await house.put_stranger("oslo", key("stranger"))  # so that the digest is no answer
    before = {key_id: found.spec for key_id, found in (await house.listed("oslo")).items()}
    sequence = (await house.state("oslo")).sequence
    proxy.lie = lie
    await house.look("implausible")
    assert proxy.lied
    assert (await house.state("oslo")).sequence == sequence, "nothing was done to the node"
    assert await house.value("SELECT count(*) FROM cases WHERE kind = 'node_implausible'") == 1
    assert await house.value("SELECT count(*) FROM key_sightings") == 0
    proxy.lie = None
    await house.look("drifted")
    assert {key_id: found.spec for key_id, found in (await house.listed("oslo")).items()} == before
    await house.move_clock(seconds=121)
    await house.look("drifted")
    await converged(house, "oslo")


async def test_answers_lost_after_they_were_applied_leave_one_key_and_cost_no_attempt(
    lied: tuple[NodeHouse, LyingProxy],
) -> None:
    house, proxy = lied
    await serve(house, 1, 2)
    proxy.lie = loses("PUT /v1/users/", "DELETE /v1/users/", times=4)
    await house.buy(3)
    await house.revoke(1)
    await converged(house, "oslo")
    assert proxy.lied == 4
    assert len(await house.listed("oslo")) == 2


async def test_answers_to_put_backs_that_are_lost_are_found_done_by_the_next_pass(
    lied: tuple[NodeHouse, LyingProxy],
) -> None:
    house, proxy = lied
    await serve(house, 1, 2)
    await house.lose("oslo", *(await house.listed("oslo")))
    proxy.lie = loses("POST /v1/batch")
    await house.look("failed")
    proxy.lie = None
    await house.look()
    await house.look("equal")
    await converged(house, "oslo")


async def test_removals_whose_answers_are_lost_are_not_repeated_blindly(lied: tuple[NodeHouse, LyingProxy]) -> None:
    house, proxy = lied
    await serve(house, 1)
    await house.put_stranger("oslo", key("stranger"))
    await house.look("drifted")
    await house.move_clock(seconds=121)
    proxy.lie = loses("DELETE /v1/users/stranger", times=1)
    await house.look("drifted")
    assert "stranger" not in await house.listed("oslo")
    await house.look("equal")
    await converged(house, "oslo")


async def test_a_full_disk_of_one_node_is_a_condition_there_and_the_others_serve_buyers_and_nobody_is_cut(
    house: NodeHouse, site: Origin
) -> None:
    await serve(house, 1, 2)
    oslo = house.agents["oslo"]
    link = oslo.link((await house.listed("oslo"))[(await house.key(1)).key_id].spec)
    async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
        limit_files(oslo, (oslo.directory / "keys.0.log").stat().st_size + 10)
        house.pool.events.clear()
        for telegram_id in range(3, 8):  # more refusals than open a breaker
            await house.buy(telegram_id)
        await house.revoke(2)
        for telegram_id in range(3, 8):

            async def is_shown(telegram_id: int = telegram_id) -> bool:
                return [node.name for node in (await house.key(telegram_id)).nodes] == ["rome"]

            await house.until(is_shown)
        address = house.pool.system.address("node.oslo")

        async def is_told() -> bool:
            return "refuses changes" in address.readiness[1]

        await house.until(is_told)
        assert not address.readiness[0]
        await read_more(stream, 50)
        limit_files(oslo, resource.RLIM_INFINITY)
        await house.until_back("oslo")
        await converged(house, "oslo", "rome")
        await read_more(stream, 50)
    said = [event for event in house.pool.events if isinstance(event, NodeAway | NodeBack)]
    assert not said, "it answered all the time"
    alerts = [event for event in house.pool.events if isinstance(event, ConditionBegan | ConditionEnded)]
    assert [type(event) for event in alerts] == [ConditionBegan, ConditionEnded]


async def test_a_node_whose_clock_is_wrong_is_told_of_and_serves_on(house: NodeHouse) -> None:
    await serve(house, 1)
    address = house.pool.system.address("node.oslo")
    assert abs(CLOCK_SKEW.labels("oslo").value) < 5
    await house.move_clock(hours=1)  # the nodes' clocks stay behind

    async def is_told() -> bool:
        return "behind the database's" in address.readiness[1]

    await house.until(is_told)
    assert address.readiness[0], "it can be used"
    assert CLOCK_SKEW.labels("oslo").value == pytest.approx(-3600, abs=5)
    began = [event for event in house.pool.events if isinstance(event, ConditionBegan)]
    assert {event.subject for event in began} >= {"clock of node.oslo"}
    await house.buy(2)
    await house.until_status(2, "active")
    await house.move_clock(hours=0)

    async def is_well() -> bool:
        return address.readiness == (True, "")

    await house.until(is_well)


async def test_a_campaign_of_faults_on_three_nodes_ends_with_what_is_wanted(house: NodeHouse, site: Origin) -> None:
    await house.node("bern")
    await house.look(node="bern")
    await serve(house, *range(1, 7))
    link = house.agents["bern"].link((await house.listed("bern"))[(await house.key(1)).key_id].spec)
    async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
        await house.agents["oslo"].kill()
        [xray] = house.agents["rome"].xray_pids()
        os.kill(xray, signal.SIGKILL)
        await house.buy(7)
        await house.buy(1, charge="renewal")
        await house.revoke(2)
        ids = [(await house.key(telegram_id)).key_id for telegram_id in (3, 4)]
        await house.lose("bern", *ids)
        await house.put_stranger("bern", key("stranger"))
        await house.agent("oslo")
        await house.put_stranger("oslo", key("stranger"))
        for node in ("oslo", "rome", "bern"):
            await house.until_back(node)
        for node in ("oslo", "rome", "bern"):
            await house.look(node=node)
        await house.move_clock(seconds=121)
        for node in ("oslo", "rome", "bern"):
            await house.look(node=node)
        await converged(house, "oslo", "rome", "bern")
        await read_more(stream, 50)
    for node in ("oslo", "rome", "bern"):
        await house.look("equal", node=node)
