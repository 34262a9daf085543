"""Every fault of a node, with real agents and a real database: afterwards the nodes have what is wanted, and no payer was cut."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from actors.conditions import ConditionBegan, ConditionEnded
from actors.keys.events import KeyPostponed, PassStopped
from actors.nodes.node import NodeActor, NodeAway, NodeBack
from actors.nodes.trouble import CLOCK_SKEW, XRAY_ENDS, NodeXrayEnded
from runtime.config import Secret
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.actors.nodes.lying_proxy import LyingProxy, lists, loses
from tests.fork_server import shared_fork_server
from tests.vpn.agent.http.test_tls import tls_agent
from tests.vpn.agent.test_faults import limit_files, xray_of
from tests.vpn.agent.test_xray_down import port_taken
from tests.vpn.agents import TOKEN, RunningAgent, gone, key
from tests.vpn.certificate import Authority
from tests.vpn.origin import PAGE, Origin, origin_server
from tests.vpn.streams import open_stream, read_more
from vpn.digest import expiry_seconds
from vpn.errors import TunnelError
from vpn.node.settings import NodeSettings
from vpn.protocol import KeySpec
from vpn.xray.tunnel import open_tunnel


@pytest.fixture
async def harness(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHarness]:
    """Two nodes, and every worker."""
    async with node_harness(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        await started.node("oslo")
        await started.node("rome")
        yield started


@pytest.fixture
async def lied(database_dsn: str, tmp_path: Path) -> AsyncIterator[tuple[NodeHarness, LyingProxy]]:
    """One node behind a proxy, and every worker."""
    async with node_harness(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        proxy = await started.node_behind_proxy("oslo")
        yield started, proxy


@pytest.fixture
async def site() -> AsyncIterator[Origin]:
    """A web server that only loopback reaches."""
    async with origin_server() as serving:
        yield serving


async def serve(harness: NodeHarness, *telegram_ids: int) -> None:
    """Customers whose keys are live everywhere."""
    for telegram_id in telegram_ids:
        await harness.buy(telegram_id)
    for telegram_id in telegram_ids:
        await harness.until_status(telegram_id, "active")


async def converged(harness: NodeHarness, *nodes: str) -> None:
    """Wait until everything is at rest; then the nodes have exactly the keys that are active, as the database has them: their
    agents, their Xrays, and packets, which pass with a key that is paid for and with none that ended."""

    async def is_at_rest() -> bool:
        return await harness.at_rest() == []

    await harness.until(is_at_rest)
    wanted: dict[str, Any] = {}
    for telegram_id in await harness.value("SELECT array_agg(telegram_id) FROM customers"):  # type: ignore[attr-defined]  # a list
        view = await harness.view(telegram_id)
        assert view.key is not None
        if view.key.status == "active":
            wanted[view.key.key_id] = (view.key.uuid, expiry_seconds(view.expires_at))
    for name in nodes:
        listed = await harness.listed(name)
        assert {
            key_id: (found.spec.uuid, expiry_seconds(found.spec.expires_at)) for key_id, found in listed.items()
        } == wanted, name
        async with xray_of(harness.agents[name]) as xray:
            users = {(user.email, user.uuid) for user in await xray.list_users("vless")}
        assert users == {(key_id, uuid) for key_id, (uuid, _) in wanted.items()}, name
    ended = await harness.value("SELECT array_agg(uuid) FROM vpn_keys WHERE activation_status = 'removed'")
    async with origin_server() as site:
        for name in nodes:
            for key_id, (uuid, _) in [*wanted.items()][:1]:
                async with open_tunnel(harness.agents[name].link(KeySpec(key_id, uuid))) as tunnel:
                    assert (await tunnel.fetch(site.url)).body == PAGE, name
            for uuid in [*(ended or [])][:1]:  # type: ignore[misc]  # a list, or none
                async with open_tunnel(harness.agents[name].link(KeySpec("ended", UUID(str(uuid))))) as tunnel:
                    with pytest.raises(TunnelError):
                        await tunnel.fetch(site.url)
    assert await harness.value("SELECT coalesce(max(attempts), 0) FROM vpn_keys") == 0


async def test_a_killed_xray_comes_back_with_every_key_and_the_node_is_looked_at_at_once(harness: NodeHarness) -> None:
    await serve(harness, 1, 2)
    before = (await harness.state("oslo")).boot_id
    [xray] = harness.agents["oslo"].xray_pids()
    os.kill(xray, signal.SIGKILL)

    async def is_looked_at() -> bool:
        seen = await harness.value(
            "SELECT p.boot_id FROM reconcile_passes p JOIN vpn_nodes n ON n.id = node_id AND n.name = 'oslo'"
        )
        return seen not in (None, before)

    await harness.until(is_looked_at)
    await converged(harness, "oslo", "rome")


async def test_while_one_agent_is_dead_the_other_node_serves_at_once_and_cuts_nobody(
    harness: NodeHarness, site: Origin
) -> None:
    await serve(harness, 1, 2)
    link = harness.agents["rome"].link((await harness.listed("rome"))[(await harness.key(1)).key_id].spec)
    async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
        await harness.agents["oslo"].kill()
        await harness.buy(3)
        await harness.revoke(2)

        async def is_shown() -> bool:
            return [node.name for node in (await harness.key(3)).nodes] == ["rome"]

        await harness.until(is_shown, within=10)
        assert (await harness.key(3)).status == "pending"
        await read_more(stream, 50)
        await harness.agent("oslo")
        await converged(harness, "oslo", "rome")
        await read_more(stream, 50)
    assert [node.name for node in (await harness.key(3)).nodes] == ["oslo", "rome"]


async def test_a_node_down_for_an_hour_costs_no_attempt_and_converges_when_it_is_back(harness: NodeHarness) -> None:
    await serve(harness, 1, 2)
    await harness.agents["oslo"].kill()
    for minutes in (20, 60):
        await harness.move_clock(minutes=minutes)
        await harness.buy(minutes)
        harness.wake("activation")
        harness.wake("fast_expiry")
        await harness.look("away")
    await harness.revoke(2)
    assert await harness.value("SELECT max(attempts) FROM vpn_keys") == 0
    assert await harness.value("SELECT count(*) FROM cases") == 0
    assert [event for event in harness.pool.events if isinstance(event, KeyPostponed)]
    await harness.agent("oslo")
    await converged(harness, "oslo", "rome")


async def test_keys_that_wait_for_a_node_are_due_at_once_when_it_is_back(harness: NodeHarness) -> None:
    await serve(harness, 1)
    await harness.agents["oslo"].kill()
    await harness.buy(2)

    async def is_postponed() -> bool:
        return bool([event for event in harness.pool.events if isinstance(event, KeyPostponed)])

    await harness.until(is_postponed)
    await harness.value("UPDATE vpn_keys SET next_attempt_at = atlas_now() + interval '1 hour' RETURNING 1")
    await harness.agent("oslo")
    await harness.until_status(2, "active")
    await converged(harness, "oslo", "rome")


async def test_a_list_that_fails_stops_the_pass_and_removes_nothing(lied: tuple[NodeHarness, LyingProxy]) -> None:
    harness, proxy = lied
    await serve(harness, 1, 2)
    await harness.put_stranger("oslo", key("stranger"))
    await harness.look("drifted")
    await harness.move_clock(seconds=121)
    proxy.lie = lambda request, answer: b"<html>sorry</html>" if request.startswith("GET /v1/users?") else answer
    await harness.look("failed")
    assert len(await harness.listed("oslo")) == 3
    assert [event for event in harness.pool.events if isinstance(event, PassStopped)]
    proxy.lie = None
    await harness.look("drifted")
    await converged(harness, "oslo")


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("empty", lists(lambda told: told.update(keys=[], next=None))),
        ("short", lists(lambda told: told.update(keys=told["keys"][1:]))),  # type: ignore[index]  # a list of keys
        ("changed", lists(lambda told: told["keys"][0].update(expires_at=1))),  # type: ignore[index]  # as above
    ],
)
async def test_a_list_that_contradicts_the_node_is_not_believed(
    lied: tuple[NodeHarness, LyingProxy], name: str, lie: Any
) -> None:
    harness, proxy = lied
    await serve(harness, 1, 2)
    await harness.put_stranger("oslo", key("stranger"))  # so that the digest is no answer
    before = {key_id: found.spec for key_id, found in (await harness.listed("oslo")).items()}
    sequence = (await harness.state("oslo")).sequence
    proxy.lie = lie
    await harness.look("implausible")
    assert proxy.lied
    assert (await harness.state("oslo")).sequence == sequence, "nothing was done to the node"
    assert await harness.value("SELECT count(*) FROM cases WHERE kind = 'node_implausible'") == 1
    assert await harness.value("SELECT count(*) FROM key_sightings") == 0
    proxy.lie = None
    await harness.look("drifted")
    assert {key_id: found.spec for key_id, found in (await harness.listed("oslo")).items()} == before
    await harness.move_clock(seconds=121)
    await harness.look("drifted")
    await converged(harness, "oslo")


async def test_answers_lost_after_they_were_applied_leave_one_key_and_cost_no_attempt(
    lied: tuple[NodeHarness, LyingProxy],
) -> None:
    harness, proxy = lied
    await serve(harness, 1, 2)
    proxy.lie = loses("PUT /v1/users/", "DELETE /v1/users/", times=4)
    await harness.buy(3)
    await harness.revoke(1)
    await converged(harness, "oslo")
    assert proxy.lied == 4
    assert len(await harness.listed("oslo")) == 2


async def test_answers_to_put_backs_that_are_lost_are_found_done_by_the_next_pass(
    lied: tuple[NodeHarness, LyingProxy],
) -> None:
    harness, proxy = lied
    await serve(harness, 1, 2)
    await harness.lose("oslo", *(await harness.listed("oslo")))
    proxy.lie = loses("POST /v1/batch")
    await harness.look("failed")
    proxy.lie = None
    await harness.look()
    await harness.look("equal")
    await converged(harness, "oslo")


async def test_removals_whose_answers_are_lost_are_not_repeated_blindly(lied: tuple[NodeHarness, LyingProxy]) -> None:
    harness, proxy = lied
    await serve(harness, 1)
    await harness.put_stranger("oslo", key("stranger"))
    await harness.look("drifted")
    await harness.move_clock(seconds=121)
    proxy.lie = loses("DELETE /v1/users/stranger", times=1)
    await harness.look("drifted")
    assert "stranger" not in await harness.listed("oslo")
    await harness.look("equal")
    await converged(harness, "oslo")


async def test_a_full_disk_is_a_condition_of_its_node_while_others_serve_and_nobody_is_cut(
    harness: NodeHarness, site: Origin
) -> None:
    await serve(harness, 1, 2)
    oslo = harness.agents["oslo"]
    link = oslo.link((await harness.listed("oslo"))[(await harness.key(1)).key_id].spec)
    async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
        limit_files(oslo, (oslo.directory / "keys.0.log").stat().st_size + 10)
        harness.pool.events.clear()
        for telegram_id in range(3, 8):  # more refusals than open a breaker
            await harness.buy(telegram_id)
        await harness.revoke(2)
        for telegram_id in range(3, 8):

            async def is_shown(telegram_id: int = telegram_id) -> bool:
                return [node.name for node in (await harness.key(telegram_id)).nodes] == ["rome"]

            await harness.until(is_shown)
        address = harness.pool.system.address("node.oslo")

        async def is_told() -> bool:
            return "refuses changes" in address.readiness[1]

        await harness.until(is_told)
        assert not address.readiness[0]
        await read_more(stream, 50)
        limit_files(oslo, resource.RLIM_INFINITY)
        await harness.until_back("oslo")
        await converged(harness, "oslo", "rome")
        await read_more(stream, 50)
    said = [event for event in harness.pool.events if isinstance(event, NodeAway | NodeBack)]
    assert not said, "it answered all the time"
    alerts = [event for event in harness.pool.events if isinstance(event, ConditionBegan | ConditionEnded)]
    assert [type(event) for event in alerts] == [ConditionBegan, ConditionEnded]


async def test_a_node_whose_clock_is_wrong_is_told_of_and_serves_on(harness: NodeHarness) -> None:
    await serve(harness, 1)
    address = harness.pool.system.address("node.oslo")
    assert abs(CLOCK_SKEW.labels("oslo").value) < 5
    await harness.move_clock(hours=1)  # the nodes' clocks stay behind

    async def is_told() -> bool:
        return "behind the database's" in address.readiness[1]

    await harness.until(is_told)
    assert address.readiness[0], "it can be used"
    assert CLOCK_SKEW.labels("oslo").value == pytest.approx(-3600, abs=5)
    began = [event for event in harness.pool.events if isinstance(event, ConditionBegan)]
    assert {event.subject for event in began} >= {"clock of node.oslo"}
    await harness.buy(2)
    await harness.until_status(2, "active")
    await harness.move_clock(hours=0)

    async def is_well() -> bool:
        return address.readiness == (True, "")

    await harness.until(is_well)


async def test_a_campaign_of_faults_on_three_nodes_ends_with_what_is_wanted(harness: NodeHarness, site: Origin) -> None:
    await harness.node("bern")
    await harness.look(node="bern")
    await serve(harness, *range(1, 7))
    link = harness.agents["bern"].link((await harness.listed("bern"))[(await harness.key(1)).key_id].spec)
    async with open_tunnel(link) as tunnel, open_stream(tunnel, site) as stream:
        await harness.agents["oslo"].kill()
        [xray] = harness.agents["rome"].xray_pids()
        os.kill(xray, signal.SIGKILL)
        await harness.buy(7)
        await harness.buy(1, charge="renewal")
        await harness.revoke(2)
        ids = [(await harness.key(telegram_id)).key_id for telegram_id in (3, 4)]
        await harness.lose("bern", *ids)
        await harness.put_stranger("bern", key("stranger"))
        await harness.agent("oslo")
        await harness.put_stranger("oslo", key("stranger"))
        for node in ("oslo", "rome", "bern"):
            await harness.until_back(node)
        for node in ("oslo", "rome", "bern"):
            await harness.look(node=node)
        await harness.move_clock(seconds=121)
        for node in ("oslo", "rome", "bern"):
            await harness.look(node=node)
        await converged(harness, "oslo", "rome", "bern")
        await read_more(stream, 50)
    for node in ("oslo", "rome", "bern"):
        await harness.look("equal", node=node)


async def test_an_xray_that_ends_again_and_again_reaches_the_backend(harness: NodeHarness) -> None:
    """One end is an event and a count; the third in a row is a condition."""
    address, agent = harness.pool.system.address("node.oslo"), harness.agents["oslo"]
    before = XRAY_ENDS.labels("oslo").value
    for number in (1, 2, 3):
        [xray] = agent.xray_pids()
        os.kill(xray, signal.SIGKILL)
        await gone(xray)

        async def is_counted(number: int = number) -> bool:
            return XRAY_ENDS.labels("oslo").value == before + number and bool(agent.xray_pids())

        await harness.until(is_counted)

    async def is_said() -> bool:
        said = address.readiness[1]
        return "ends again and again, 3 times in a row" in said and "status -9" in said

    await harness.until(is_said)
    ended = [event for event in harness.pool.events if isinstance(event, NodeXrayEnded) and event.actor == "node.oslo"]
    assert sum(event.times for event in ended) == 3


async def test_an_xray_that_does_not_start_is_a_condition_until_it_does_and_others_serve(harness: NodeHarness) -> None:
    await serve(harness, 1)
    address, agent = harness.pool.system.address("node.oslo"), harness.agents["oslo"]

    def said(kind: type[ConditionBegan | ConditionEnded]) -> list[Any]:
        subject = "xray of node.oslo"
        return [event for event in harness.pool.events if isinstance(event, kind) and event.subject == subject]

    async with port_taken(agent):

        async def is_named() -> bool:
            return any(
                "does not run" in event.trouble and "cannot listen" in event.trouble for event in said(ConditionBegan)
            )

        await harness.until(is_named)
        assert not address.readiness[0] and "its Xray is not ready" in address.readiness[1]
        await harness.buy(2)

        async def is_served_elsewhere() -> bool:
            return [node.name for node in (await harness.key(2)).nodes] == ["rome"]

        await harness.until(is_served_elsewhere)

    async def is_over() -> bool:
        return bool(said(ConditionEnded)) and address.readiness[0]

    await harness.until(is_over)
    await converged(harness, "oslo", "rome")


async def test_a_mistake_of_tls_is_a_condition_that_names_it_and_the_next_one_as_well(
    database_dsn: str, tmp_path: Path
) -> None:
    """The same address leads to one misconfigured agent after another, as when an operator mends one thing and breaks another."""
    authority, stranger = Authority(tmp_path, "authority.example"), Authority(tmp_path, "stranger.example")
    (ours, our_key), (theirs, their_key) = authority.issue("node.example"), stranger.issue("other.example")
    server = shared_fork_server("vpn.agent")
    async with (
        node_harness(database_dsn, tmp_path) as harness,
        tls_agent(tmp_path, server, "unknown", certificate=theirs, key=their_key) as unknown,
        tls_agent(tmp_path, server, "asking", certificate=ours, key=our_key, client_ca=authority.file) as asking,
        tls_agent(tmp_path, server, "well", certificate=ours, key=our_key) as well,
        trio.open_nursery() as nursery,
    ):
        target = unknown

        async def relay(client: trio.SocketStream) -> None:
            async with (
                client,
                await trio.open_tcp_stream("127.0.0.1", port_of(target)) as agent,
                trio.open_nursery() as both,
            ):
                both.start_soon(pump, client, agent)
                await pump(agent, client)
                both.cancel_scope.cancel()

        listeners = await nursery.start(partial(trio.serve_tcp, relay, 0, host="127.0.0.1"))
        url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        settings = NodeSettings(url=url, token=Secret(TOKEN), within=5.0, ca_file=str(authority.file))
        actor = NodeActor("oslo", settings, probe_interval=0.1, first_pause=0.1, longest_pause=0.2)
        await harness.pool.system.start(actor, name="node.oslo")
        address = harness.pool.system.address("node.oslo")

        def said(kind: type[ConditionBegan | ConditionEnded]) -> list[Any]:
            return [e for e in harness.pool.events if isinstance(e, kind) and e.subject == "tls of node.oslo"]

        for number, (agent, setting) in enumerate(((unknown, "`ca_file`"), (asking, "`certificate_file`")), start=1):
            target = agent

            async def is_named(number: int = number, setting: str = setting) -> bool:
                return len(said(ConditionBegan)) == number and setting in address.readiness[1]

            await harness.until(is_named)
            assert setting in said(ConditionBegan)[-1].trouble
            assert setting in str(address.inspect()["actor"]), "and what `status` shows"
        target = well
        await harness.until_back("oslo")
        assert len(said(ConditionEnded)) == 2
        nursery.cancel_scope.cancel()


async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    """Pass on what comes, and its end."""
    with contextlib.suppress(trio.BrokenResourceError):  # one of both sides has gone
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()


def port_of(agent: RunningAgent) -> int:
    return int(agent.url.rpartition(":")[2])
