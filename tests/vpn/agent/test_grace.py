"""The grace: keys whose time ends while nobody could have renewed them live on, and only then."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from tests.fork_server import ForkServer
from tests.run_queue import PATIENCE
from tests.vpn.agent.test_expiry import at
from tests.vpn.agent.test_faults import limit_files
from tests.vpn.agents import RunningAgent, configured_agent, key, measured, unheard_since
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.commands.node import node
from vpn.errors import NodeError, TunnelError
from vpn.node.client import AgentClient
from vpn.protocol import KeyState
from vpn.xray.tunnel import open_tunnel

HOUR = 3600.0
DAY = 86_400.0


@contextlib.asynccontextmanager
async def unheard(
    directory: Path, server: ForkServer, settle: float = 300.0, offset: float = 0.0
) -> AsyncIterator[RunningAgent]:
    """An agent whose clock may be moved, and which has not heard the backend for an hour."""
    unheard_since(directory / "node", HOUR)
    async with graced(directory, server, settle, offset) as agent:
        yield agent


@contextlib.asynccontextmanager
async def graced(
    directory: Path, server: ForkServer, settle: float = 300.0, offset: float = 0.0
) -> AsyncIterator[RunningAgent]:
    """An agent whose clock may be moved; the grace ends `settle` seconds after the backend is heard."""
    settings = f"clock_offset = {offset}\n[expiry]\nsettle = {settle}"
    async with configured_agent(directory, server, settings) as agent:
        yield agent


def backend(agent: RunningAgent) -> AgentClient:
    """A client of somebody who can extend keys; `agent.client()` is one of somebody who cannot."""
    return attrs.evolve(agent.client(), can_extend=True)


async def state_of(client: AgentClient, key_id: str) -> KeyState:
    """What happens to a wanted key."""
    found = await client.get(key_id)
    assert found is not None
    return found.state


async def test_while_the_backend_is_silent_keys_live_a_day_longer_and_then_they_are_cut(
    tmp_path: Path, fork_server: ForkServer, origin: Origin
) -> None:
    spec = key("customer", expires_at=at(100))
    async with unheard(tmp_path, fork_server) as agent, agent.client() as operator:
        await operator.put(spec)
        async with open_tunnel(agent.link(spec)) as tunnel, open_stream(tunnel, origin) as stream:
            await operator.move_clock(DAY + 50)
            assert await state_of(operator, "customer") is KeyState.SERVING
            await read_more(stream, 50)
            assert (await tunnel.fetch(origin.url)).body == PAGE
            await operator.move_clock(DAY + 200)
            with trio.fail_after(PATIENCE):
                await read_until_cut(stream)
            with pytest.raises(TunnelError):
                await tunnel.fetch(origin.url)


async def test_once_the_backend_is_back_it_has_its_time_to_extend_before_anybody_is_cut(
    tmp_path: Path, fork_server: ForkServer, origin: Origin
) -> None:
    renewed, ended = (key(name, expires_at=at(100)) for name in ("renewed", "ended"))
    async with (
        unheard(tmp_path, fork_server, settle=1.0) as agent,
        backend(agent) as client,
        open_tunnel(agent.link(renewed)) as one,
        open_tunnel(agent.link(ended)) as other,
    ):
        async with agent.client() as operator:
            await operator.move_clock(0)
            for spec in (renewed, ended):
                await operator.put(spec)
        async with open_stream(one, origin) as kept, open_stream(other, origin) as lost:
            async with agent.client() as operator:
                await operator.move_clock(HOUR)
            heard = time.time()
            await client.put(attrs.evolve(renewed, expires_at=at(2 * HOUR)))
            with trio.fail_after(10):
                await read_until_cut(lost)
            assert time.time() - heard >= 1.0, "not before the time to catch up is over"
            await read_more(kept, 50)
        assert (await one.fetch(origin.url)).body == PAGE
        assert await state_of(client, "ended") is KeyState.EXPIRED


async def test_looking_at_a_node_does_not_end_the_grace(
    tmp_path: Path, fork_server: ForkServer, origin: Origin
) -> None:
    """An operator who wants to know how it is, and monitoring that asks again and again, can extend nobody."""
    spec = key("customer", expires_at=at(100))
    async with unheard(tmp_path, fork_server, settle=0.0) as agent, agent.client() as monitoring:
        await monitoring.put(spec)
        await monitoring.move_clock(HOUR)
        asked = ["state", "--url", agent.url, "--token-file", str(tmp_path / "node.token")]
        shown = await trio.to_thread.run_sync(lambda: CliRunner().invoke(node, asked, catch_exceptions=False))
        assert shown.exit_code == 0 and "1 serving" in shown.output
        for _ in range(3):
            await monitoring.list()
            await monitoring.usage()
        assert await measured(agent, "atlas_node_backend_silence_seconds") >= HOUR
        async with open_tunnel(agent.link(spec)) as tunnel:
            assert (await tunnel.fetch(origin.url)).body == PAGE
        async with open_tunnel(agent.link(spec)) as tunnel, open_stream(tunnel, origin) as stream:
            async with backend(agent) as client:
                await client.state()
            with trio.fail_after(PATIENCE):
                await read_until_cut(stream)
        assert await measured(agent, "atlas_node_backend_silence_seconds") < HOUR


async def test_a_backend_whose_extensions_cannot_be_written_down_does_not_end_the_grace(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    """The disk is full: who renews then is told to the node only once there is room."""
    async with unheard(tmp_path, fork_server) as agent, backend(agent) as client:
        limit_files(agent, 0)
        async with agent.client() as operator:
            with pytest.raises(NodeError, match="free space"):
                await operator.put(key("customer"))
        await client.state()
        assert await measured(agent, "atlas_node_backend_silence_seconds") >= HOUR
        limit_files(agent, resource.RLIM_INFINITY)
        with trio.fail_after(10):
            while (await client.state()).why:
                await trio.lowlevel.checkpoint()
        await client.state()
        assert await measured(agent, "atlas_node_backend_silence_seconds") < HOUR


async def test_the_time_to_catch_up_survives_a_restart(tmp_path: Path, fork_server: ForkServer) -> None:
    spec = key("customer", expires_at=at(100))
    async with unheard(tmp_path, fork_server) as first, backend(first) as client:
        await client.put(spec)
        assert await measured(first, "atlas_node_grace_seconds") == DAY
        await first.kill()
    async with graced(tmp_path, fork_server) as second, backend(second) as client:
        await client.move_clock(HOUR)
        assert await measured(second, "atlas_node_backend_silence_seconds") < HOUR
        assert await measured(second, "atlas_node_grace_seconds") == DAY
        assert await state_of(client, "customer") is KeyState.SERVING


async def test_a_key_that_was_cut_stays_out_over_a_restart_while_the_backend_is_silent(
    tmp_path: Path, fork_server: ForkServer, origin: Origin
) -> None:
    ended, later = key("ended", expires_at=at(100)), key("later", expires_at=at(HOUR + 1000))
    async with graced(tmp_path, fork_server) as first, backend(first) as client:
        for spec in (ended, later):
            await client.put(spec)
        await client.move_clock(HOUR)
        assert await state_of(client, "ended") is KeyState.EXPIRED
        await first.kill()
    async with (
        unheard(tmp_path, fork_server, offset=2 * HOUR) as second,
        second.client() as operator,
        open_tunnel(second.link(ended)) as one,
        open_tunnel(second.link(later)) as other,
    ):
        assert await measured(second, "atlas_node_grace_seconds") == DAY
        assert await state_of(operator, "ended") is KeyState.EXPIRED
        assert (await other.fetch(origin.url)).body == PAGE, "this one ended only while nobody could renew it"
        with pytest.raises(TunnelError):
            await one.fetch(origin.url)
        await operator.put(attrs.evolve(ended, expires_at=at(3 * HOUR)))
        assert (await one.fetch(origin.url)).body == PAGE
