"""Everything at once: a bad network, late copies, killed agents and killed Xrays. What is wanted in the end is what is served."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest
import trio

from tests.fork_server import ForkServer
from tests.vpn.agent.test_faults import until_xray_has, xray_of
from tests.vpn.agents import RunningAgent, key, running_agent
from tests.vpn.node.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.vpn.node.test_client import client_of
from tests.vpn.origin import PAGE, Origin
from vpn.digest import digest
from vpn.errors import NodeConflict, NodeError
from vpn.node.client import AgentClient
from vpn.protocol import KeySpec, Removal
from vpn.xray.tunnel import open_tunnel

NAMES = [f"customer-{number}" for number in range(12)]
LOSSES = [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.HALF_ANSWER]
Wanted = dict[str, KeySpec | Removal]


class Storm:
    """A backend that keeps changing its mind, and what it has said so far."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # repeatable on purpose
        self.wanted: Wanted = {}
        self.history: list[KeySpec | Removal] = []
        self._turn = 0
        self._turned = trio.Event()

    def change(self) -> KeySpec | Removal:
        """What is wanted next."""
        name = self.chance.choice(NAMES)
        known = self.wanted.get(name)
        generation = 1 if known is None else known.generation + isinstance(known, Removal)
        if isinstance(known, KeySpec) and self.chance.random() < 0.5:
            change: KeySpec | Removal = Removal(name, generation)
        else:
            change = key(name, generation=generation + isinstance(known, KeySpec))
        self.wanted[name] = change
        self.history.append(change)
        return change

    async def blow(self, client: AgentClient, proxy: FaultyProxy, turns: int) -> None:
        """So many changes on a bad network, with copies of older ones among them."""
        for _ in range(turns):
            proxy.plan(*self.chance.choices(LOSSES, k=self.chance.randrange(3)))
            changes = [self.change()]
            if self.chance.random() < 0.5:
                changes.insert(self.chance.randrange(2), self.chance.choice(self.history))
            self._turn += 1
            self._turned.set()
            self._turned = trio.Event()
            async with trio.open_nursery() as nursery:
                for change in changes:
                    nursery.start_soon(say, client, change)

    async def turns(self, count: int) -> None:
        """Wait for so many more of them."""
        until = self._turn + count
        while self._turn < until:
            await self._turned.wait()

    async def settle(self, client: AgentClient) -> None:
        """What a reconciling backend does once the network is good: say again what is wanted."""
        for change in self.wanted.values():
            await say(client, change)


async def say(client: AgentClient, change: KeySpec | Removal) -> None:
    """One change; whatever becomes of it."""
    with contextlib.suppress(NodeError):
        if isinstance(change, KeySpec):
            await client.put(change)
        else:
            await client.remove(change.key_id, change.generation)


async def check(agent: RunningAgent, storm: Storm, origin: Origin) -> None:
    """The node wants, tells and serves exactly what is wanted, and a late copy of anything is turned away."""
    specs = sorted((change for change in storm.wanted.values() if isinstance(change, KeySpec)), key=lambda s: s.key_id)
    async with agent.client() as client:
        assert [found.spec async for found in client.list_all()] == specs
        state = await client.state()
        assert (state.digest, state.serving, state.pending) == (digest(specs), len(specs), 0)
        async with xray_of(agent) as xray:
            await until_xray_has(xray, *specs)
        for change in storm.history:
            if isinstance(change, KeySpec) and storm.wanted[change.key_id] != change:
                with pytest.raises(NodeConflict):
                    await client.put(change)
    async with open_tunnel(agent.link(specs[0])) as tunnel:
        assert (await tunnel.fetch(origin.url)).body == PAGE


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_any_storm_the_node_serves_what_is_wanted_and_nothing_else(
    tmp_path: Path, origin: Origin, fork_server: ForkServer, seed: int
) -> None:
    storm = Storm(seed)
    for _ in range(2):
        async with running_agent(tmp_path / "node", server=fork_server) as agent:
            async with faulty_proxy(agent.url) as proxy, client_of(proxy.url) as client, trio.open_nursery() as nursery:
                nursery.start_soon(storm.blow, client, proxy, 12)
                await storm.turns(6)
                for xray in agent.xray_pids():
                    os.kill(xray, signal.SIGKILL)
            async with faulty_proxy(agent.url) as proxy, client_of(proxy.url) as client, trio.open_nursery() as nursery:
                nursery.start_soon(storm.blow, client, proxy, 4)
                await storm.turns(3)
                await agent.kill()
    async with running_agent(tmp_path / "node", server=fork_server) as agent:
        async with agent.client() as client:
            await storm.settle(client)
        await check(agent, storm, origin)
