"""`atlas node list | usage | kick`: what an operator can do with a node when there is no backend to ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import trio
from click.testing import CliRunner, Result

from tests.run_queue import at_most
from tests.vpn.agents import RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_until_cut
from vpn.commands.node import node
from vpn.errors import NodeUnknownKey
from vpn.xray.tunnel import open_tunnel


async def ask(agent: RunningAgent, command: str, *arguments: str) -> Result:
    """Run a command about this agent."""
    token = agent.directory.with_suffix(".token")
    asked = [command, "--url", agent.url, "--token-file", str(token), *arguments]
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(node, asked))


async def test_every_key_is_listed_with_what_the_node_does_with_it_and_without_its_uuid(agent: RunningAgent) -> None:
    end = datetime(2001, 2, 3, tzinfo=UTC)
    served, ended = key("served", generation=3), key("ended", expires_at=end)
    async with agent.backend() as client:
        for spec in (served, ended):
            await client.put(spec)
    shown = await ask(agent, "list")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert lines == [
        ["ended", "expired", "1", end.isoformat(), f"{str(ended.uuid)[:8]}…"],
        ["served", "serving", "3", "no", "end", f"{str(served.uuid)[:8]}…"],
    ]
    told = json.loads((await ask(agent, "list", "--json")).output)
    assert [(one["key_id"], one["state"], one["expires_at"]) for one in told] == [
        ("ended", "expired", int(end.timestamp())),
        ("served", "serving", None),
    ]
    for said in (shown.output, json.dumps(told)):
        assert str(served.uuid) not in said and served.uuid.hex not in said


async def test_usage_is_shown_by_key(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client, open_tunnel(agent.link(spec)) as tunnel:
        await client.put(spec)
        await tunnel.fetch(origin.url)
        boot = (await client.state()).boot_id
    name, sent, received = (await ask(agent, "usage")).output.split()
    assert name == "customer" and int(sent) > 0 and int(received) >= len(PAGE)
    told = json.loads((await ask(agent, "usage", "--json")).output)
    assert told == {"boot_id": boot, "users": [{"key_id": "customer", "uplink": int(sent), "downlink": int(received)}]}


async def test_a_kick_cuts_the_customers_connections_and_lets_come_back(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client, open_tunnel(agent.link(spec)) as tunnel:
        await client.put(spec)
        async with open_stream(tunnel, origin) as stream:
            assert (await ask(agent, "kick", "customer")).output == "connections cut: 1\n"
            with at_most(2):
                await read_until_cut(stream)
        assert (await tunnel.fetch(origin.url)).body == PAGE
    unknown = await ask(agent, "kick", "nobody")
    assert isinstance(unknown.exception, NodeUnknownKey) and unknown.exception.exit_code == 69
    assert (await ask(agent, "kick", "NOT A KEY")).exit_code == 2
