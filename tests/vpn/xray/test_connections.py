"""Cutting a customer's open connections: exactly those, at once, and on both of the node's sides."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.fork_server import ForkServer
from tests.run_queue import PATIENCE, at_most
from tests.stopping import stop
from tests.vpn.agents import RunningAgent, configured_agent, gone, key, measured, running_agent
from tests.vpn.origin import Origin
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.protocol import KeySpec
from vpn.xray import cutter as sockdiag
from vpn.xray.cutter import CutMethod, Cutter, cut_method
from vpn.xray.tunnel import Tunnel, open_tunnel

NEEDS_NET_ADMIN = pytest.mark.skipif(not sockdiag.can_destroy(), reason="needs CAP_NET_ADMIN and SOCK_DESTROY")


@attrs.frozen
class Served:
    """A customer of an agent, connected."""

    spec: KeySpec
    tunnel: Tunnel


@contextlib.asynccontextmanager
async def served(agent: RunningAgent, name: str, mux: int = 0) -> AsyncIterator[Served]:
    """A customer with a key and a tunnel."""
    spec = key(name)
    async with agent.client() as client, open_tunnel(agent.link(spec), mux=mux) as tunnel:
        await client.put(spec)
        yield Served(spec, tunnel)


def cutter(agent: RunningAgent, method: CutMethod = CutMethod.DUPLICATE) -> Cutter:
    """A cutter of this agent's Xray, used from the test: not its parent, but its grandparent."""
    (xray,) = agent.xray_pids()
    return Cutter(xray, agent.facts.port, method)


@pytest.mark.parametrize("mux", [0, 8], ids=["no-mux", "mux"])
async def test_a_cut_ends_both_sides_well_within_a_second(agent: RunningAgent, origin: Origin, mux: int) -> None:
    async with agent.client() as client, served(agent, "customer", mux) as customer:
        async with open_stream(customer.tunnel, origin) as stream:
            with at_most(0.7):
                await client.remove("customer", 1)
                await read_until_cut(stream)
        with trio.fail_after(PATIENCE):
            await origin.until_open(0)


async def test_a_silent_connection_is_cut_too(agent: RunningAgent, origin: Origin) -> None:
    async with agent.client() as client, served(agent, "customer") as customer:
        stream = await customer.tunnel.connect("127.0.0.1", origin.port)
        async with stream:
            await stream.send_all(b"G")
            await origin.until_open(1)
            with at_most(0.7):
                assert (await client.remove("customer", 1)).cut == 1
                await read_until_cut(stream)
        with trio.fail_after(PATIENCE):
            await origin.until_open(0)


async def test_every_connection_of_a_customer_is_cut(agent: RunningAgent, origin: Origin) -> None:
    async with agent.client() as client, served(agent, "customer") as customer, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(open_stream(customer.tunnel, origin)) for _ in range(12)]
        with at_most(1):
            assert (await client.remove("customer", 1)).cut == 12
            for stream in streams:
                await read_until_cut(stream)


async def test_a_client_that_keeps_coming_stays_out(agent: RunningAgent, origin: Origin) -> None:
    """Its mux connection is cut, and what it opens in the same moment is refused."""
    async with agent.client() as client, served(agent, "customer", 8) as customer:
        async with open_stream(customer.tunnel, origin) as stream, trio.open_nursery() as nursery:

            async def knock() -> None:
                for _ in range(20):
                    again = await customer.tunnel.connect("127.0.0.1", origin.port)
                    async with again:
                        with contextlib.suppress(trio.BrokenResourceError):
                            await again.send_all(b"GET / HTTP/1.0\r\n\r\n")
                        await read_until_cut(again)

            nursery.start_soon(knock)
            await client.remove("customer", 1)
            await read_until_cut(stream)
        with trio.fail_after(PATIENCE):
            await origin.until_open(0)


@pytest.mark.parametrize("mux", [0, 8], ids=["no-mux", "mux"])
async def test_after_a_removal_the_customers_counters_stand_still_while_others_go_on(
    agent: RunningAgent, origin: Origin, mux: int
) -> None:
    async with (
        served(agent, "removed", mux) as removed,
        served(agent, "other") as other,
        agent.client() as client,
        open_stream(removed.tunnel, origin) as stream,
        open_stream(other.tunnel, origin) as kept,
    ):

        async def counted() -> dict[str, int]:
            return {user.key_id: user.uplink + user.downlink for user in (await client.usage()).users}

        await client.remove("removed", 1)
        await read_until_cut(stream)
        with trio.fail_after(PATIENCE):
            await origin.until_open(1)
        before = await counted()
        await read_more(kept, 200)
        after = await counted()
        assert after["removed"] == before["removed"] > 0
        assert after["other"] > before["other"]


async def test_only_the_named_connections_are_cut(agent: RunningAgent, origin: Origin) -> None:
    async with served(agent, "one") as one, served(agent, "two") as two:
        cutting = cutter(agent)
        async with open_stream(one.tunnel, origin) as first:
            mine = cutting.live()
            async with open_stream(two.tunnel, origin) as second:
                assert len(mine) == 1 and len(cutting.live()) == 2
                assert cutting.cut(mine) == mine
                with at_most(0.7):
                    await read_until_cut(first)
                await read_more(second, 50)
                assert cutting.cut(mine) == frozenset()


async def test_a_connection_nobody_reported_is_found_by_its_traffic(agent: RunningAgent, origin: Origin) -> None:
    """Xray drops access lines under load. Here the agent is made to miss one: it is stopped while its Xray writes, and the
    line is read away before it goes on."""
    async with served(agent, "hidden") as hidden, served(agent, "seen") as seen, agent.client() as client:
        (xray,) = agent.xray_pids()
        stop(agent.child.pid)
        with reading_away(agent.child.pid, xray) as lines:
            async with open_stream(hidden.tunnel, origin) as stray:
                await lines.until("hidden")
                agent.child.send_signal(signal.SIGCONT)
                async with open_stream(seen.tunnel, origin) as kept:
                    removed = await client.remove("hidden", 1)
                    assert removed.cut == 0, "the agent was to know of no connection"
                    with trio.fail_after(PATIENCE):
                        await read_until_cut(stray)
                    await read_more(kept, 50)


async def test_an_unreported_connection_that_was_idle_for_long_is_cut_once_it_moves(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    """Idle since before the removal and without a byte of its own: the looks right after the removal cannot see it."""
    async with (
        configured_agent(tmp_path, fork_server, "verify_every = 0.3") as agent,
        served(agent, "hidden") as hidden,
        served(agent, "seen") as seen,
        agent.client() as client,
    ):
        (xray,) = agent.xray_pids()
        stop(agent.child.pid)
        with reading_away(agent.child.pid, xray) as lines:
            stray = await hidden.tunnel.connect("127.0.0.1", origin.port)
            async with stray:
                await lines.until("hidden")
                await origin.until_open(1)
                agent.child.send_signal(signal.SIGCONT)
                async with open_stream(seen.tunnel, origin) as kept:
                    assert (await client.remove("hidden", 1)).cut == 0, "the agent was to know of no connection"
                    await stray.send_all(b"GET /stream HTTP/1.1\r\nHost: origin\r\n\r\n")
                    await read_more(stray, 1)
                    with trio.fail_after(10):
                        await read_until_cut(stray)
                    await read_more(kept, 50)
                    with trio.fail_after(60):  # it is counted once it is cut
                        while await measured(agent, "atlas_node_strays_total") != 1:
                            await read_more(kept, 1)


@attrs.define
class Lines:
    """What Xray wrote and the agent never got."""

    descriptor: int
    _text: bytes = b""

    async def until(self, word: str) -> None:
        """Take lines away until one has this word."""
        with trio.fail_after(PATIENCE):
            while word.encode() not in self._text:
                await trio.lowlevel.wait_readable(self.descriptor)
                with contextlib.suppress(BlockingIOError):
                    self._text += os.read(self.descriptor, 65536)


@contextlib.contextmanager
def reading_away(agent: int, xray: int) -> Iterator[Lines]:
    """Read what Xray prints in the agent's place."""
    pipe = Path(f"/proc/{xray}/fd/1").readlink()
    reader = next(path for path in Path(f"/proc/{agent}/fd").iterdir() if path.readlink() == pipe)
    descriptor = os.open(reader, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield Lines(descriptor)
    finally:
        os.close(descriptor)


@NEEDS_NET_ADMIN
@pytest.mark.root
async def test_without_duplicates_the_kernel_destroys_exactly_the_named_connection(
    agent: RunningAgent, origin: Origin
) -> None:
    async with served(agent, "one") as one, served(agent, "two") as two:
        cutting = cutter(agent, CutMethod.DESTROY)
        async with open_stream(one.tunnel, origin) as first:
            mine = cutting.live()
            async with open_stream(two.tunnel, origin) as second:
                assert cutting.cut(mine) == mine
                with at_most(0.7):
                    await read_until_cut(first)
                await read_more(second, 50)


async def test_the_way_to_cut_is_found_and_reported(agent: RunningAgent) -> None:
    (xray,) = agent.xray_pids()
    assert cut_method(xray) is CutMethod.DUPLICATE
    async with agent.client() as client:
        assert {"cut", "cut-duplicate"} <= (await client.state()).capabilities


async def test_a_process_that_has_ended_has_no_way(tmp_path: Path, fork_server: ForkServer) -> None:
    async with running_agent(tmp_path / "node", server=fork_server) as ended:
        (xray,) = ended.xray_pids()
    with trio.fail_after(PATIENCE):
        await gone(xray)
    assert cut_method(xray) is CutMethod.NONE
    assert Cutter(xray, 1, CutMethod.NONE).cut(frozenset()) == frozenset()
