"""How long a change takes until customers notice, at a real node: PUT → packets pass, DELETE → cut, end → cut.

The group `node`, or `python -m benchmarks.node [--rounds N]`. A real agent with a real Xray on loopback, driven by the
backend's own client.
Packets are a customer's: a VLESS request on a fresh connection, answered by a page behind the node. These figures run
from the moment the call is sent: the first until the first byte came through on a connection that was opened after the
call returned, the second until an open stream saw its end. The calls themselves, as the backend waits for them, are
beside them. The last runs from the moment that a key's time is over, without anybody telling the node; twenty end together.
After every removal and every end, a new connection has to be refused.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import attrs
import trio
from rich.console import Console

from benchmarks import table
from benchmarks.main_job import open_tunnel, until_cut
from benchmarks.result import Result
from benchmarks.spread import spread
from tests.e2e.origin import Origin, origin
from tests.vpn.agents import RunningAgent, key, running_agent
from vpn.node.client import AgentClient
from vpn.protocol import KeySpec

ROUNDS = 200
QUICK_ROUNDS = 3
PATIENCE = 10.0
WARM_UP = 5
TOGETHER = 20
BEFORE_THE_END = 3.0


@attrs.define
class Figures:
    """Seconds, one value a round."""

    put: list[float] = attrs.field(factory=list)
    put_to_packets: list[float] = attrs.field(factory=list)
    delete: list[float] = attrs.field(factory=list)
    delete_to_cut: list[float] = attrs.field(factory=list)
    end_to_cut: list[float] = attrs.field(factory=list)


async def one_round(client: AgentClient, agent: RunningAgent, site: Origin, spec: KeySpec, figures: Figures) -> None:
    """One key: wanted, used, removed."""
    node = (agent.facts.host, agent.facts.port)
    await _expect_refused(node, spec.uuid, site)
    began = time.perf_counter()
    await client.put(spec)
    figures.put.append(time.perf_counter() - began)
    stream = await open_tunnel(node, spec.uuid, site)
    if stream is None:
        raise RuntimeError("the node confirmed a key and then refused it")
    figures.put_to_packets.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await until_cut(stream)
            figures.delete_to_cut.append(time.perf_counter() - began)

        nursery.start_soon(watch)
        began = time.perf_counter()
        await client.remove(spec.key_id, spec.generation)
        figures.delete.append(time.perf_counter() - began)
    await _expect_refused(node, spec.uuid, site)


async def ends_together(client: AgentClient, agent: RunningAgent, site: Origin, number: int, figures: Figures) -> None:
    """Some keys, each with an open stream, whose time is over at the same second."""
    node = (agent.facts.host, agent.facts.port)
    end = math.ceil(time.time() + BEFORE_THE_END)
    specs = [key(f"ending-{number}-{one}", expires_at=datetime.fromtimestamp(end, UTC)) for one in range(TOGETHER)]
    streams = []
    for spec in specs:
        await client.put(spec)
        stream = await open_tunnel(node, spec.uuid, site)
        if stream is None:
            raise RuntimeError("the node refuses a key whose time is not over")
        streams.append(stream)

    async def watch(stream: trio.SocketStream) -> None:
        await until_cut(stream)
        figures.end_to_cut.append(time.time() - end)

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(watch, stream)
    for spec in specs:
        await _expect_refused(node, spec.uuid, site)


async def _expect_refused(node: tuple[str, int], uuid: UUID, site: Origin) -> None:
    stream = await open_tunnel(node, uuid, site)
    if stream is not None:
        await stream.aclose()
        raise RuntimeError("the node serves a key that it should not")


async def scenario(rounds: int) -> Figures:
    """So many keys, one after the other, after a few that are not counted."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as directory:
        async with running_agent(Path(directory) / "node") as agent, agent.backend() as client, origin() as site:
            for number in range(rounds + WARM_UP):
                if number == WARM_UP:
                    figures = Figures()
                with trio.fail_after(PATIENCE):
                    await one_round(client, agent, site, key(f"customer-{number}"), figures)
            for number in range(math.ceil(rounds / TOGETHER)):
                with trio.fail_after(PATIENCE):
                    await ends_together(client, agent, site, number, figures)
    return figures


def results(figures: Figures) -> list[Result]:
    """As a report has them."""
    lines: list[Result] = []
    for what, seconds, limit in (
        ("PUT answered", figures.put, None),
        ("PUT → packets pass", figures.put_to_packets, 1000.0),
        ("DELETE answered", figures.delete, None),
        ("DELETE → open stream cut", figures.delete_to_cut, 1000.0),
        ("end of a key → open stream cut", figures.end_to_cut, 1000.0),
    ):
        lines += spread(what, seconds, at_most=limit)
    return lines


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` does it with three keys."""
    return results(trio.run(scenario, QUICK_ROUNDS if quick else ROUNDS))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    found = results(trio.run(scenario, parser.parse_args().rounds))
    table.show({"node": found}, Console(width=None if sys.stdout.isatty() else table.WIDTH))
