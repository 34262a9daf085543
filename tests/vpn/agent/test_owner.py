"""A real agent and its owner: upgraded from the version before, restarted, and asked by others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner, Result

from tests.fork_server import ForkServer
from tests.vpn.agents import key, measured, running_agent, unheard_since
from vpn.commands.node import node
from vpn.errors import NodeNotOwner

HOUR = 3600.0


async def test_an_agent_of_the_version_before_goes_on_and_is_bound_at_the_first_contact(
    tmp_path: Path, fork_server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    directory, spec = tmp_path / "node", key("customer")
    async with running_agent(directory, server=fork_server) as agent, agent.client() as client:
        await client.put(spec)
    for name in ("owner.json", "clock"):
        (directory / name).unlink(missing_ok=True)
    (directory / "heard").touch()
    os.utime(directory / "heard", (time.time() - HOUR / 2,) * 2)
    capfd.readouterr()
    async with running_agent(directory, server=fork_server) as agent, agent.backend() as backend:
        assert HOUR / 2 <= await measured(agent, "atlas_node_backend_silence_seconds") < HOUR
        before = await backend.state()
        assert (before.serving, before.owner) == (1, "")
        await backend.put(key("from-a-backend-of-the-version-before"))
        await backend.claim("a-database", "", "first-nonce")
        after = await backend.state()
        assert (after.serving, after.owner) == (2, "a-database")
    said = [line for line in capfd.readouterr().err.splitlines() if "is ruled by a database" in line]
    assert len(said) == 1


async def test_others_read_and_change_nothing_and_their_contact_counts_for_nothing(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    directory = tmp_path / "node"
    async with running_agent(directory, server=fork_server) as agent, agent.client() as owner:
        await owner.claim("a-database", "", "first-nonce")
        await owner.put(key("customer"))
    unheard_since(directory, HOUR)
    async with running_agent(directory, server=fork_server) as agent:
        async with attrs.evolve(agent.backend(ahead=2 * 86_400), owner=lambda: "other-nonce") as other:
            assert (await other.state()).count == 1
            await other.usage()
            changes = (
                lambda: other.put(key("stranger")),
                lambda: other.remove("customer", 1),
                lambda: other.batch([key("stranger"), key("another")]),
                lambda: other.sync([]),
                lambda: other.kick("customer"),
            )
            for change in changes:
                with pytest.raises(NodeNotOwner, match="another installation"):
                    await change()
        assert await measured(agent, "atlas_node_backend_silence_seconds") >= HOUR
        asked = ["kick", "--url", agent.url, "--token-file", str(tmp_path / "node.token"), "customer"]
        for given, worked in ((), False), (("--data-dir", str(directory)), True):
            done = await _run([*asked, *given])
            assert (done.exit_code == 0) is worked, done.output
        async with agent.backend() as backend:
            assert (await backend.state()).count == 1
        assert await measured(agent, "atlas_node_backend_silence_seconds") < HOUR
        disowned = await _run(["disown", "--data-dir", str(directory)])
        code = disowned.output.split()[0]
        async with agent.client() as next_owner:
            await next_owner.claim("next-database", "", "next-nonce", code=code)
            assert (await next_owner.state()).owner == "next-database"


async def _run(arguments: list[str]) -> Result:
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(node, arguments))
