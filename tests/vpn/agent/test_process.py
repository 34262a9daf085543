"""The agent as a process: what survives which death, and how it refuses to start."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.fork_server import ForkServer
from tests.run_queue import PATIENCE, at_most
from tests.vpn.agents import TOKEN, RunningAgent, arguments, gone, key, running_agent
from tests.vpn.origin import PAGE, Origin
from vpn.protocol import NodeState
from vpn.xray.tunnel import open_tunnel


async def test_killing_the_agent_leaves_no_xray_and_a_restart_serves_every_key(tmp_path: Path, origin: Origin) -> None:
    kept, removed = key("kept"), key("removed")
    async with running_agent(tmp_path / "node") as first:
        async with first.client() as client:
            await client.put(kept)
            await client.put(removed)
            await client.remove("removed", 1)
        (xray,) = first.xray_pids()
        link = first.link(kept)
        await first.kill()
        with at_most(2):
            await gone(xray)
    async with running_agent(tmp_path / "node") as second:
        assert second.facts == first.facts, "links must stay valid"
        async with second.client() as client:
            assert await client.get("removed") is None
            with pytest.raises(Exception, match="removed"):
                await client.put(removed)
        async with open_tunnel(link) as tunnel:
            assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_a_killed_xray_comes_back_with_every_key(agent: RunningAgent, origin: Origin) -> None:
    specs = [key(f"customer-{number}") for number in range(20)]
    async with agent.client() as client, open_tunnel(agent.link(specs[7])) as tunnel:
        for spec in specs:
            await client.put(spec)
        before = await client.state()
        (xray,) = agent.xray_pids()
        os.kill(xray, signal.SIGKILL)
        with trio.fail_after(PATIENCE):
            await gone(xray)
            await client.put(key("meanwhile"))  # waits for Xray
        after = await client.state()
        assert after.boot_id != before.boot_id
        assert (after.serving, after.pending) == (21, 0)
        assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(agent: RunningAgent) -> None:
    ask = f"GET /v1/state HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode() * 100
    with socket.create_connection(("127.0.0.1", int(agent.url.rpartition(":")[2]))) as reader:
        reader.setblocking(False)
        with trio.move_on_after(1.0):
            while True:  # until its answers fill every buffer on the way, and it reads no further request
                await trio.lowlevel.wait_writable(reader)
                reader.send(ask)
        agent.child.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            assert await agent.child.wait() == 0


async def test_the_end_of_standard_input_ends_agent_and_xray(agent: RunningAgent) -> None:
    (xray,) = agent.xray_pids()
    assert agent.child.stdin is not None
    await agent.child.stdin.aclose()
    with trio.fail_after(PATIENCE):
        assert await agent.child.wait() == 0
        await gone(xray)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_agent_and_xray_in_order(agent: RunningAgent, number: signal.Signals) -> None:
    (xray,) = agent.xray_pids()
    agent.child.send_signal(number)
    with trio.fail_after(PATIENCE):
        assert await agent.child.wait() == 0
        await gone(xray)


async def test_an_offline_agent_forgets_nothing_it_confirmed(tmp_path: Path, fork_server: ForkServer) -> None:
    states: list[NodeState] = []
    async with running_agent(tmp_path / "node", server=fork_server) as first:
        async with first.client() as client:
            for number in range(30):
                await client.put(key(f"customer-{number}"))
            for number in range(0, 30, 3):
                await client.remove(f"customer-{number}", 1)
            states.append(await client.state())
        await first.kill()
    async with running_agent(tmp_path / "node", server=fork_server) as second, second.client() as client:
        states.append(await client.state())
    assert states[0].count == states[1].count == 20
    assert states[0].digest == states[1].digest
    assert states[0].sequence == states[1].sequence


async def test_two_agents_are_two_nodes(tmp_path: Path, origin: Origin) -> None:
    spec = key("customer")
    async with running_agent(tmp_path / "one") as one, running_agent(tmp_path / "two") as two:
        assert one.facts.port != two.facts.port
        async with one.client() as client:
            await client.put(spec)
        async with open_tunnel(one.link(spec)) as tunnel:
            assert (await tunnel.fetch(origin.url)).body == PAGE
        async with two.client() as client:
            assert (await client.state()).count == 0
            assert await client.get("customer") is None


Start = Callable[[list[str]], tuple[int, str]]


@pytest.fixture
def start(fork_server: ForkServer) -> Start:
    """Run an agent that refuses to start: exit code and what it said."""

    def run(argv: list[str]) -> tuple[int, str]:
        status, out, err = fork_server.run(argv[3:])
        assert out == ""
        return status, err

    return run


async def test_a_second_agent_on_the_same_directory_is_refused(agent: RunningAgent, start: Start) -> None:
    status, said = await trio.to_thread.run_sync(lambda: start(arguments(agent.directory)))
    assert status == 69
    assert f"process {agent.child.pid}" in said
    assert "Traceback" not in said


async def test_a_taken_port_is_refused_by_name(tmp_path: Path, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = await trio.to_thread.run_sync(
            lambda: start(arguments(tmp_path / "node", "--listen", f"127.0.0.1:{port}"))
        )
        customers = await trio.to_thread.run_sync(
            lambda: start(arguments(tmp_path / "node", "--inbound-port", str(port)))
        )
    assert api[0] == customers[0] == 69
    assert f"127.0.0.1:{port}" in api[1] and "--listen" in api[1]
    assert f"127.0.0.1:{port}" in customers[1] and "--inbound-port" in customers[1]


async def test_a_kept_port_that_is_taken_is_not_changed_behind_customers_backs(
    tmp_path: Path, start: Start, fork_server: ForkServer
) -> None:
    async with running_agent(tmp_path / "node", server=fork_server) as first:
        port = first.facts.port
        held_by = first.xray_pids()
    for pid in held_by:
        await gone(pid)
    with socket.create_server(("127.0.0.1", port)):
        status, said = await trio.to_thread.run_sync(lambda: start(arguments(tmp_path / "node")))
    assert status == 69
    assert f"127.0.0.1:{port}" in said and "links" in said
    async with running_agent(tmp_path / "node", server=fork_server) as second:
        assert second.facts.port == port


def test_a_missing_token_is_refused(tmp_path: Path, start: Start) -> None:
    argv = arguments(tmp_path / "node")
    (tmp_path / "node.token").unlink()
    status, said = start(argv)
    assert status == 78
    assert "node.token" in said and "Traceback" not in said


@pytest.mark.parametrize("token", ["", "short", "with spaces in its middle"])
def test_a_weak_token_is_refused_and_not_repeated(tmp_path: Path, token: str, start: Start) -> None:
    argv = arguments(tmp_path / "node")
    (tmp_path / "node.token").write_text(token)
    status, said = start(argv)
    assert status == 78
    assert "16 characters" in said
    assert not token or token not in said


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path, start: Start) -> None:
    (tmp_path / "file").write_text("")
    status, said = start([*arguments(tmp_path / "node"), "--data-dir", str(tmp_path / "file" / "node")])
    assert status == 77
    assert str(tmp_path / "file" / "node") in said and "Traceback" not in said


async def test_damaged_keys_are_refused_by_file_line_and_byte(
    tmp_path: Path, start: Start, fork_server: ForkServer
) -> None:
    async with running_agent(tmp_path / "node", server=fork_server) as first, first.client() as client:
        for number in range(3):
            await client.put(key(f"customer-{number}"))
    log = tmp_path / "node" / "keys.0.log"
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    status, said = await trio.to_thread.run_sync(lambda: start(arguments(tmp_path / "node")))
    assert status == 78
    assert "keys.0.log is damaged at line 2" in said and "byte" in said and "Traceback" not in said


def test_an_agent_reachable_from_outside_without_encryption_is_refused(tmp_path: Path, start: Start) -> None:
    status, said = start(arguments(tmp_path / "node", "--listen", "0.0.0.0:0"))
    assert status == 78
    assert "tls" in said
