"""Whatever the host's clock is set to, customers keep and lose access at the backend's time: real agents under libfaketime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.fork_server import ForkServer
from tests.run_queue import PATIENCE
from tests.vpn.agent.test_expiry import at
from tests.vpn.agents import key, measured, running_agent, unheard_since
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_more, read_until_cut
from vpn.agent.state.records import decode_line, encode_line
from vpn.errors import TunnelError
from vpn.node.client import AgentClient
from vpn.protocol import NodeState
from vpn.xray.tunnel import open_tunnel

DAY = 86_400.0
LIBRARY = next(
    iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), Path("libfaketime is not installed")
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not LIBRARY.exists(), reason="needs Debian's libfaketime"),
]


@attrs.define
class WallClock:
    """The wall clock of an agent's host: real time, and some seconds."""

    file: Path

    def set(self, ahead: float) -> None:
        """Set it so far ahead of real time, or behind."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{ahead:+.0f}")
        new.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """What a process with the library needs to live by it. The kernel's other clocks stay what they are."""
        return os.environ | {
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WallClock, ForkServer]]:
    """A wall clock, and where agents that live by it are forked from."""
    clock = WallClock(tmp_path_factory.mktemp("host") / "wall")
    clock.set(0)
    server = ForkServer("vpn.agent", clock.environment | {"LD_PRELOAD": str(LIBRARY)})
    yield clock, server
    server.close()


@pytest.fixture
def wall(host: tuple[WallClock, ForkServer]) -> WallClock:
    """A wall clock that is right."""
    host[0].set(0)
    return host[0]


@pytest.fixture
def server(host: tuple[WallClock, ForkServer]) -> ForkServer:
    """Where agents on that host are forked from."""
    return host[1]


async def until(client: AgentClient, is_so: Callable[[NodeState], bool]) -> NodeState:
    """The node's state once it is so."""
    with trio.fail_after(PATIENCE):
        while not is_so(state := await client.state()):
            await trio.lowlevel.checkpoint()
    return state


async def test_no_step_of_the_hosts_clock_ends_or_keeps_a_key_and_each_is_noticed(
    tmp_path: Path, wall: WallClock, server: ForkServer, origin: Origin
) -> None:
    paying, ending = key("paying", expires_at=at(DAY)), key("ending", expires_at=at(3600))
    async with (
        running_agent(tmp_path / "node", server=server, env=wall.environment) as agent,
        agent.backend() as backend,
    ):
        for spec in (paying, ending):
            await backend.put(spec)
        async with open_tunnel(agent.link(paying)) as tunnel, open_stream(tunnel, origin) as stream:
            for number, ahead in enumerate((3, 5 * DAY, -5 * DAY, 0), start=1):
                wall.set(ahead)
                with trio.fail_after(PATIENCE):
                    while await measured(agent, "atlas_node_clock_steps_total") < number:
                        await read_more(stream, 20)
                state = await backend.state()
                assert state.wall_skew == pytest.approx(ahead, abs=0.9) and state.time_source == "backend"
                assert (state.serving, state.expired) == (2, 0)
                await read_more(stream, 20)
            wall.set(-5 * DAY)
            ended = attrs.evolve(ending, key_id="ended", uuid=key("x").uuid, expires_at=at(2))
            await backend.put(ended)
            async with open_tunnel(agent.link(ended)) as other, open_stream(other, origin) as cut:
                with trio.fail_after(PATIENCE):
                    await read_until_cut(cut)
            await read_more(stream, 20)
        assert await measured(agent, "atlas_node_backend_silence_seconds") >= 0


async def test_an_agent_started_on_a_host_with_a_wrong_clock_goes_on_by_the_backends_time(
    tmp_path: Path, wall: WallClock, server: ForkServer, origin: Origin
) -> None:
    """In the same boot of the host exactly; in another it ends nothing until the backend is there."""
    directory = tmp_path / "node"
    paying, over = key("paying", expires_at=at(DAY)), key("over", expires_at=at(1))
    async with running_agent(directory, server=server, env=wall.environment) as agent, agent.backend() as backend:
        for spec in (paying, over):
            await backend.put(spec)
        await until(backend, lambda state: state.expired == 1)
    wall.set(2 * DAY)
    async with running_agent(directory, server=server, env=wall.environment) as agent, agent.client() as operator:
        state = await operator.state()
        assert state.time_source == "backend" and (state.serving, state.expired) == (1, 1)
    for ahead in (2 * DAY, -5 * DAY):
        wall.set(ahead)
        another_boot(directory / "clock")
        async with (
            running_agent(directory, server=server, env=wall.environment) as agent,
            agent.client() as operator,
            agent.backend() as backend,
            open_tunnel(agent.link(paying)) as tunnel,
            open_tunnel(agent.link(over)) as other,
        ):
            assert (await operator.state()).time_source == "guess"
            assert (await tunnel.fetch(origin.url)).body == PAGE
            await backend.state()
            state = await until(operator, lambda state: state.expired == 1)
            assert state.time_source == "backend" and state.ends_held == 0
            assert (await tunnel.fetch(origin.url)).body == PAGE
            with pytest.raises(TunnelError):
                await other.fetch(origin.url)


async def test_a_backend_that_was_wrong_and_corrects_itself_gives_back_what_ended_too_soon(
    tmp_path: Path, server: ForkServer, wall: WallClock, origin: Origin
) -> None:
    """Nothing tells a node that the first time it hears is wrong; another does, once it was said twice ten seconds apart."""
    spec, for_ever = key("paying", expires_at=at(DAY)), key("for-ever")
    async with (
        running_agent(tmp_path / "node", server=server, env=wall.environment) as agent,
        open_tunnel(agent.link(spec)) as tunnel,
        open_tunnel(agent.link(for_ever)) as other,
    ):
        async with agent.backend(ahead=2 * DAY) as wrong:
            await wrong.put(for_ever)
            await wrong.put(spec)
            assert (await wrong.state()).expired == 1
        async with agent.backend() as backend, open_stream(other, origin) as stream:
            with trio.fail_after(PATIENCE):
                while (await backend.state()).expired:
                    await read_more(stream, 100)
        assert await measured(agent, "atlas_node_given_back_total") == 1
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_many_keys_at_once_end_only_once_the_backend_confirms_the_time(
    tmp_path: Path, server: ForkServer, wall: WallClock
) -> None:
    """Even a time that is exact ends no large share of the keys on the node's own word."""
    directory = tmp_path / "node"
    many, few = 30, 3
    soon, later = at(1), at(DAY)
    async with running_agent(directory, server=server, env=wall.environment) as agent, agent.client() as client:
        await client.batch([key(f"many-{number}", expires_at=soon) for number in range(many)])
        await client.batch([key(f"few-{number}", expires_at=later) for number in range(few)])
    unheard_since(directory, 3 * DAY, now=time.time() + 1.5 * DAY)
    async with running_agent(directory, server=server, env=wall.environment) as agent, agent.client() as operator:
        state = await until(operator, lambda state: state.ends_held == many)
        assert state.expired == 0 and "no backend confirms the time" in state.why_held
        assert await measured(agent, "atlas_node_ends_held") == many
        async with agent.backend(ahead=1.5 * DAY) as backend:
            await backend.state()
        state = await until(operator, lambda state: state.expired == many)
        assert state.ends_held == 0


def another_boot(clock: Path) -> None:
    """Have the agent's file be of another boot of the host."""
    data = decode_line(clock.read_bytes().removesuffix(b"\n"))
    clock.write_bytes(encode_line(data | {"boot_id": "another"}))
