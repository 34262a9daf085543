"""One node with very many keys: seeing that it has all of them, filling it, losing all of it, and what its customers
notice.

`python -m benchmarks.node_keys [--keys 50000]`, or the group `node_keys`. A real agent with a real Xray on loopback,
driven by the backend's own client, as the reconciling worker does it: the digest first, the whole set only if it
differs. Beside the node that is filled stands another one, and on both a customer reads an endless stream through a
real tunnel: the longest time in which nothing came is what a paying customer noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from uuid import uuid4

import attrs
import trio
from rich.console import Console

from benchmarks import table
from benchmarks.result import Result, figure
from tests.fork_server import ForkServer
from tests.vpn.agents import RunningAgent, key, running_agent
from tests.vpn.origin import PAGE, Origin, origin_server
from tests.vpn.streams import open_stream, read_more
from vpn.digest import digest
from vpn.errors import NodeAmbiguous
from vpn.node.client import AgentClient
from vpn.protocol import KeySpec
from vpn.xray.tunnel import open_tunnel

KEYS = 50_000
QUICK_KEYS = 2_000
_CHANGED = 0.02
_START = 120.0
_ALREADY_BACK = 5


@attrs.define
class Figures:
    """Seconds, and bytes for memory."""

    fill: float = 0.0
    verdict: float = 0.0
    pages: float = 0.0
    restart: float = 0.0
    lost: float = 0.0
    lost_elsewhere_silence: float = 0.0
    lost_but_some: float = 0.0
    lost_but_some_silence: float = 0.0
    changes: float = 0.0
    changes_silence: float = 0.0
    agent_memory: int = 0
    xray_memory: int = 0


@attrs.define
class Watcher:
    """A customer who reads a stream all the time. `longest` is the longest silence so far, in seconds."""

    longest: float = 0.0

    async def watch(self, stream: trio.SocketStream) -> None:
        """Read until cancelled and note the longest silence."""
        last = time.perf_counter()
        while True:
            await read_more(stream, 1)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


@contextlib.asynccontextmanager
async def watching(agent: RunningAgent, spec: KeySpec, site: Origin) -> AsyncIterator[Watcher]:
    """A stream through this key that is watched as long as the block lasts; raises if it is cut."""
    watcher = Watcher()
    async with (
        open_tunnel(agent.link(spec)) as tunnel,
        open_stream(tunnel, site) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watcher.watch, stream)
        yield watcher
        nursery.cancel_scope.cancel()


async def converge(client: AgentClient, specs: Sequence[KeySpec]) -> bool:
    """What the reconciling worker does: compare, and send everything only if it differs. Whether it did."""
    state = await client.state()
    if state.digest == digest(specs):
        return False
    with contextlib.suppress(NodeAmbiguous):  # longer than a request may take: everything is written down, and goes on
        outcome = await client.sync(specs, unchanged_since=state.sequence)
        if outcome.refused:
            raise RuntimeError(f"the node refused {outcome.refused[0]}")
    while (state := await client.state()).pending:  # noqa: ASYNC110  # another process, which sends no events
        await trio.sleep(0.1)
    if state.digest != digest(specs) or state.serving != len(specs):
        raise RuntimeError(f"the node has {state.count} keys and serves {state.serving} after a sync of {len(specs)}")
    return True


async def use(agent: RunningAgent, spec: KeySpec, site: Origin) -> None:
    """Fetch a page with this key."""
    async with open_tunnel(agent.link(spec)) as tunnel:
        if (await tunnel.fetch(site.url)).body != PAGE:
            raise RuntimeError("another page came through the tunnel")


async def scenario(directory: Path, count: int, server: ForkServer | None = None) -> Figures:
    """All of it, with so many keys. Agents are forked from `server`, if given."""
    figures = Figures()
    specs = [key(f"customer-{number:06}") for number in range(count)]
    elsewhere = key("elsewhere")
    async with origin_server() as site, running_agent(directory / "other", server=server, within=_START) as other:
        async with other.client() as client:
            await client.put(elsewhere)
        async with running_agent(directory / "node", server=server, within=_START) as node, node.client() as client:
            figures.fill = await _timed(lambda: converge(client, specs), changes=True)
            await use(node, specs[count // 2], site)
            figures.verdict = await _timed(lambda: converge(client, specs), changes=False)
            began = time.perf_counter()
            if [found.spec.key_id async for found in client.list_all()] != [spec.key_id for spec in specs]:
                raise RuntimeError("the list is not what was sent")
            figures.pages = time.perf_counter() - began
            figures.agent_memory = _resident(node.child.pid)
            figures.xray_memory = _resident(*node.xray_pids())
            changed = [attrs.evolve(spec, uuid=uuid4(), generation=2) for spec in specs[1 : 1 + int(count * _CHANGED)]]
            specs[1 : 1 + len(changed)] = changed
            async with watching(node, specs[0], site) as stays:
                figures.changes = await _timed(lambda: converge(client, specs), changes=True)
            figures.changes_silence = stays.longest
        began = time.perf_counter()
        async with running_agent(directory / "node", server=server, within=_START) as node, node.client() as client:
            figures.restart = time.perf_counter() - began
            await _timed(lambda: converge(client, specs), changes=False)
        shutil.rmtree(directory / "node")
        async with (
            watching(other, elsewhere, site) as unconcerned,
            running_agent(directory / "node", server=server, within=_START) as node,
            node.client() as client,
        ):
            figures.lost = await _timed(lambda: converge(client, specs), changes=True)
            await use(node, specs[-1], site)
        figures.lost_elsewhere_silence = unconcerned.longest
        shutil.rmtree(directory / "node")
        async with running_agent(directory / "node", server=server, within=_START) as node, node.client() as client:
            for spec in specs[:_ALREADY_BACK]:
                await client.put(spec)
            async with watching(node, specs[0], site) as back:
                figures.lost_but_some = await _timed(lambda: converge(client, specs), changes=True)
            figures.lost_but_some_silence = back.longest
            await use(node, specs[-1], site)
    return figures


async def _timed(work: Callable[[], object], *, changes: bool) -> float:
    began = time.perf_counter()
    done = work()
    assert hasattr(done, "__await__")
    if await done is not changes:
        raise RuntimeError(f"the node was {'equal' if changes else 'different'} and should not have been")
    return time.perf_counter() - began


def _resident(*pids: int) -> int:
    """Memory of these processes in bytes."""
    lines = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids).splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def results(figures: Figures, count: int) -> list[Result]:
    """As a report has them."""
    keys = f"{count} keys"
    return [
        figure(f"{keys}, equal: told by the digest", figures.verdict, "s", at_most=2.0),
        figure(f"{keys}, equal: listed in pages", figures.pages, "s"),
        figure(f"{keys}, node empty: all served", figures.fill, "s", at_most=60.0),
        figure(f"{keys}, agent restarted: all served", figures.restart, "s"),
        figure(f"{keys}, all lost: served again", figures.lost, "s", at_most=60.0),
        figure("… longest silence of a stream on another node", figures.lost_elsewhere_silence, "s", at_most=1.0),
        figure(f"{keys}, all but {_ALREADY_BACK} lost: served again", figures.lost_but_some, "s", at_most=60.0),
        figure("… longest silence of a stream on this node", figures.lost_but_some_silence, "s", at_most=1.0),
        figure(f"{keys}, {_CHANGED:.0%} changed: served", figures.changes, "s"),
        figure("… longest silence of a stream on this node", figures.changes_silence, "s", at_most=1.0),
        figure(f"{keys}: memory of the agent", figures.agent_memory / 1e6, "MB"),
        figure(f"{keys}: memory of Xray", figures.xray_memory / 1e6, "MB"),
    ]


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` does it with 2 000 keys."""
    count = QUICK_KEYS if quick else KEYS
    with tempfile.TemporaryDirectory() as directory:
        return results(trio.run(scenario, Path(directory), count), count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=KEYS)
    asked = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as temporary:
        found = results(trio.run(scenario, Path(temporary), asked), asked)
    table.show({"node_keys": found}, Console(width=None if sys.stdout.isatty() else table.WIDTH))
