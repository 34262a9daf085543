"""A node has one owner: no copy of a database rules it, and a node from a backup is recognised."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import pytest
import trio

from actors.nodes.node import NodeActor
from actors.nodes.ownership import NodeRestored
from db.keys.node_owner import confirm_claim, former_nonces, pending_claim, take_node
from runtime import Event, Ref
from runtime.config import Secret
from runtime.testing import OnCrash
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.run_queue import PATIENCE
from tests.vpn.agents import TOKEN, RunningAgent, key
from vpn.agent.state.owner import disown, nonce_of
from vpn.errors import NodeNotOwner
from vpn.node.client import AgentClient
from vpn.node.settings import NodeSettings


def stranger(agent: RunningAgent) -> AgentClient:
    """Somebody with the token, elsewhere: a copy of the installation, or a thief."""
    return attrs.evolve(agent.client(), owner=None)


async def trouble_of(harness: NodeHarness, words: str, name: str = "node.oslo") -> str:
    """The readiness of a node's actor, once it says so."""
    address = harness.pool.system.address(name)

    async def is_said() -> bool:
        return words in address.readiness[1] if words else address.readiness[0]

    await harness.until(is_said)
    return address.readiness[1]


async def second_supervisor(harness: NodeHarness, agent: RunningAgent) -> Ref:
    """Another actor of the same node on the same database, as another supervisor has one."""
    actor = NodeActor("oslo", NodeSettings(url=agent.url, token=Secret(TOKEN)), probe_interval=0.2)
    ref = await harness.pool.system.start(actor, name="node.again", on_crash=OnCrash.FAIL)
    await trouble_of(harness, "", "node.again")
    return ref


async def test_a_copy_of_the_database_reads_and_changes_nothing_and_production_goes_on(
    database_dsn: str, tmp_path: Path
) -> None:
    """Whoever has the token alone is told how ownership moves; supervisors of one database share the nonce."""
    async with node_harness(database_dsn, tmp_path) as harness:
        agent = await harness.agent("oslo")
        await harness.activation()
        old = tmp_path / "old"
        await harness.node("oslo", wakes=())
        shutil.copy(tmp_path / "oslo" / "owner.json", old)  # what a copy of the database of this moment knows
        await harness.buy(1)
        await harness.until_status(1, "active")
        await second_supervisor(harness, agent)  # has changed the nonce; the first finds out as it changes something
        await harness.buy(2)
        await harness.until_status(2, "active")

        async with stranger(agent) as copy:
            assert (await copy.state()).count == 2 and len((await copy.list()).keys) == 2
            with pytest.raises(NodeNotOwner, match=r"atlas node own NAME --take"):
                await copy.put(key("stranger"))
            with pytest.raises(NodeNotOwner):
                await copy.sync([])
            database_id = (await copy.state()).owner
            (tmp_path / "copied").mkdir()
            shutil.copy(old, tmp_path / "copied" / "owner.json")
            with pytest.raises(NodeNotOwner, match="another installation"):
                await copy.claim(database_id, nonce_of(tmp_path / "copied"), "a-nonce-of-the-copy")
        assert len(await harness.listed("oslo")) == 2
        assert harness.pool.system.address("node.oslo").readiness[0]


async def test_who_lost_a_node_says_so_and_has_it_back_once_it_is_taken_deliberately(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        agent = await harness.agent("oslo")
        await harness.activation()
        await harness.node("oslo", wakes=())
        async with stranger(agent) as other:
            await other.claim("another-database", "", "another-nonce", take=True)
        await harness.buy(1)
        said = await trouble_of(harness, "another installation rules this node (database another-")
        assert "atlas node own NAME --take" in said and not harness.pool.system.address("node.oslo").readiness[0]
        assert (await harness.key(1)).status == "pending", "it waits"
        await harness.run(take_node, "oslo", "", actor="test")
        await trouble_of(harness, "")
        harness.wake("activation")
        await harness.until_status(1, "active")

        code = disown(agent.directory)
        async with stranger(agent) as other:
            for given in ("", "wrong"):
                with pytest.raises(NodeNotOwner, match="atlas node disown"):
                    await other.claim("another-database", "", "another-nonce", code=given)
            with pytest.raises(NodeNotOwner, match="atlas node disown"):
                await other.put(key("stranger"))
        await harness.run(take_node, "oslo", code, actor="test")

        async def is_ours() -> bool:
            async with agent.client() as client:
                return (await client.state()).owner == (await harness.run(pending_claim, "oslo")).database_id

        await harness.until(is_ours)
        await trouble_of(harness, "")


async def test_supervisors_that_see_the_same_restored_node_write_it_down_once(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.node("oslo", wakes=())
        claim = await harness.run(pending_claim, "oslo")
        assert await harness.run(pending_claim, "oslo") == claim
        await harness.run(confirm_claim, "oslo", claim.nonce)  # one that has not seen the earlier state confirms first
        for _ in "both":
            await harness.run(confirm_claim, "oslo", claim.nonce, 3)
        assert await harness.value("SELECT count(*) FROM audit WHERE action = 'node_restored'") == 1


async def test_a_node_restored_from_a_backup_is_recognised_ruled_again_and_compared(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        agent = await harness.agent("oslo")
        await harness.activation()
        await harness.reconcile()
        await harness.node("oslo", wakes=("reconcile",))
        await harness.buy(1)
        await harness.until_status(1, "active")
        await agent.kill()
        shutil.copytree(tmp_path / "oslo", tmp_path / "backup", ignore=shutil.ignore_patterns("xray"))
        await harness.agent("oslo")
        await trouble_of(harness, "")
        await second_supervisor(harness, harness.agents["oslo"])
        await harness.buy(2)
        await harness.until_status(2, "active")

        async def has_changed() -> bool:
            known, kept = await harness.run(former_nonces, "oslo"), nonce_of(tmp_path / "backup")
            return kept in known[1:]

        await harness.until(has_changed)
        await harness.agents["oslo"].kill()
        shutil.rmtree(tmp_path / "oslo")
        (tmp_path / "backup").rename(tmp_path / "oslo")
        restored = trio.Event()

        def note(event: Event) -> None:
            if isinstance(event, NodeRestored) and event.changes_back >= 1:
                restored.set()

        harness.pool.system.services.events.subscribe(note)
        await harness.agent("oslo")
        with trio.fail_after(PATIENCE):
            await restored.wait()
        assert await harness.value("SELECT count(*) FROM audit WHERE action = 'node_restored'") == 1

        async def is_whole() -> bool:
            return len(await harness.listed("oslo")) == 2

        await harness.until(is_whole)
