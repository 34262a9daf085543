"""Expiry on the node itself: at its time, by its own clock, without the backend."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from tests.fork_server import ForkServer
from tests.run_queue import PATIENCE, at_most
from tests.vpn.agents import RunningAgent, key, running_agent
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_until_cut
from vpn.errors import NodeRefused, TunnelError
from vpn.protocol import KeyState
from vpn.xray.tunnel import open_tunnel


@pytest.fixture
async def movable(tmp_path: Path, fork_server: ForkServer) -> AsyncIterator[RunningAgent]:
    """An agent whose clock may be moved."""
    async with running_agent(tmp_path / "node", "--clock-offset", "0", server=fork_server) as running:
        yield running


def at(seconds: float) -> datetime:
    """A time so many seconds from now, in the whole seconds that nodes keep."""
    return datetime.fromtimestamp(math.ceil(datetime.now(UTC).timestamp() + seconds), UTC)


async def test_at_its_time_a_key_is_cut_and_refused_without_the_backend(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer", expires_at=at(2))
    other = key("other")
    async with agent.backend() as backend:
        await backend.put(other)
    async with agent.client() as client, open_tunnel(agent.link(spec)) as tunnel:
        await client.put(spec)
        async with open_stream(tunnel, origin) as stream:
            with trio.fail_after(PATIENCE):
                await read_until_cut(stream)
        ended = datetime.now(UTC)
        assert spec.expires_at is not None
        assert timedelta() <= ended - spec.expires_at < timedelta(seconds=1)
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url)
        found = await client.get("customer")
        assert found is not None and found.state is KeyState.EXPIRED
        state = await client.state()
        assert (state.count, state.serving, state.expired, state.pending) == (2, 1, 1, 0)
    async with open_tunnel(agent.link(other)) as tunnel:
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_an_extension_before_the_end_keeps_the_connection(movable: RunningAgent, origin: Origin) -> None:
    spec = key("customer", expires_at=at(1000))
    async with movable.client() as client, open_tunnel(movable.link(spec)) as tunnel:
        await client.put(spec)
        applied = await client.put(attrs.evolve(spec, expires_at=at(5000)))
        assert applied.state is KeyState.SERVING
        await client.move_clock(2000)
        assert (await tunnel.fetch(origin.url)).body == PAGE
        shorter = await client.put(spec)
        assert shorter.expires_at is not None and spec.expires_at is not None
        assert shorter.expires_at > spec.expires_at, "a late repetition must not shorten"


async def test_a_renewal_after_the_end_serves_again(movable: RunningAgent, origin: Origin) -> None:
    spec = key("customer", expires_at=at(100))
    async with movable.client() as client, open_tunnel(movable.link(spec)) as tunnel:
        await client.put(spec)
        async with open_stream(tunnel, origin) as stream:
            await client.move_clock(200)
            with at_most(1):
                await read_until_cut(stream)
        assert (await client.put(spec)).state is KeyState.EXPIRED
        assert (await client.put(attrs.evolve(spec, expires_at=at(1000)))).state is KeyState.SERVING
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_a_clock_moved_back_serves_again(movable: RunningAgent, origin: Origin) -> None:
    spec = key("customer", expires_at=at(100))
    async with movable.client() as client, open_tunnel(movable.link(spec)) as tunnel:
        await client.move_clock(200)
        assert (await client.put(spec)).state is KeyState.EXPIRED
        await client.move_clock(0)
        assert (await client.put(spec)).state is KeyState.SERVING
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_an_expired_key_stays_out_after_a_restart(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    spec = key("customer", expires_at=at(100))
    async with running_agent(tmp_path / "node", server=fork_server) as first, first.client() as client:
        assert (await client.put(spec)).state is KeyState.SERVING
    async with (
        running_agent(tmp_path / "node", "--clock-offset", "200", server=fork_server) as second,
        second.client() as client,
    ):
        state = await client.state()
        assert (state.serving, state.expired) == (0, 1)
        async with open_tunnel(second.link(spec)) as tunnel:
            with pytest.raises(TunnelError):
                await tunnel.fetch(origin.url)


async def test_the_clock_of_a_real_node_cannot_be_moved(agent: RunningAgent) -> None:
    async with agent.client() as client:
        with pytest.raises(NodeRefused, match="clock-offset"):
            await client.move_clock(1000)
        assert "clock" not in (await client.state()).capabilities
