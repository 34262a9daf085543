"""An Xray that does not start, or ends again and again: the agent answers, says why, and serves when that is mended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.fork_server import ForkServer
from tests.run_queue import PATIENCE
from tests.stopping import stop
from tests.vpn.agents import RunningAgent, configured_agent, gone, key, measured
from tests.vpn.origin import PAGE, Origin
from vpn.agent.state.identity import load_identity, save_identity
from vpn.agent.xray.supervisor import XraySupervisor
from vpn.errors import NodeUnavailable
from vpn.ports import choose_passing
from vpn.protocol import NodeState
from vpn.xray.access_log import is_about_a_customer
from vpn.xray.config import Inbound
from vpn.xray.tunnel import open_tunnel

REALITY = """
[inbound]
host = "localhost"
security = "reality"
target = "www.example.com:443"
"""


@contextlib.asynccontextmanager
async def port_taken(agent: RunningAgent) -> AsyncIterator[None]:
    """Xray is killed, and before the agent can start another one, its port is another program's."""
    [xray] = agent.xray_pids()
    stop(agent.child.pid)
    os.kill(xray, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        while (taken := _listen(agent.facts.port)) is None:  # until the dead one has let go of it
            await trio.lowlevel.checkpoint()
    with taken:
        agent.child.send_signal(signal.SIGCONT)
        yield


def _listen(port: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None


async def until_in_a_row(agent: RunningAgent, times: int) -> NodeState:
    """The state once Xray could not be started so often."""
    async with agent.client() as client:
        with trio.fail_after(PATIENCE):
            while (state := await client.state()).xray_ends_in_a_row < times:
                await trio.lowlevel.checkpoint()
    return state


async def test_while_xray_cannot_start_the_agent_answers_keeps_changes_and_heals(
    agent: RunningAgent, origin: Origin
) -> None:
    before, late = key("before"), key("late")
    async with agent.client() as client:
        await client.put(before)
        async with port_taken(agent):
            state = await until_in_a_row(agent, 4)
            assert not state.ready and f"cannot listen on 127.0.0.1:{agent.facts.port}" in state.why
            with pytest.raises(NodeUnavailable, match="cannot listen"):
                await client.put(late)
            assert (await client.state()).count == 2
            assert await measured(agent, "atlas_node_ready") == 0
        with trio.fail_after(PATIENCE):
            while not (await client.state()).ready:
                await trio.lowlevel.checkpoint()
        assert (await client.state()).xray_ends_in_a_row == 1, "of those it could not be started, none counts any more"
        for spec in (before, late):
            async with open_tunnel(agent.link(spec)) as tunnel:
                assert (await tunnel.fetch(origin.url)).body == PAGE


async def test_an_agent_whose_first_xray_is_refused_answers_and_names_the_reason(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    """A key that was lost to an editor: nothing that waiting mends, and nothing that a closed port would tell."""
    (tmp_path / "node").mkdir()
    identity = load_identity(tmp_path / "node")
    save_identity(tmp_path / "node", attrs.evolve(identity, private_key="not-a-key-at-all"))
    async with configured_agent(tmp_path, fork_server, REALITY) as agent, agent.client() as client:
        state = await until_in_a_row(agent, 3)
        assert not state.ready and "REALITY private key is unusable" in state.why
        assert "not-a-key-at-all" not in state.why
        assert await measured(agent, "atlas_node_xray_refused") == 1
    save_identity(tmp_path / "node", identity)
    async with configured_agent(tmp_path, fork_server, REALITY) as agent, agent.client() as client:
        state = await client.state()
        assert (state.ready, state.why, state.xray_ends) == (True, "", 0)
        assert await measured(agent, "atlas_node_xray_refused") == 0


@pytest.fixture
def supervisor(tmp_path: Path) -> XraySupervisor:
    """Of an Xray with no users."""
    return XraySupervisor(
        directory=tmp_path,
        inbound=Inbound("vless", "127.0.0.1", choose_passing()),
        reaches=(),
        users=list,
        on_access=lambda *_: None,
        clock=trio.current_time,
    )


async def test_what_xray_itself_refuses_is_told_and_taken_once_it_is_mended(supervisor: XraySupervisor) -> None:
    supervisor.reaches = ["10.8.0.0/99"]
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        with trio.fail_after(PATIENCE):
            while supervisor.ends_in_a_row < 3:
                await trio.testing.wait_all_tasks_blocked(0.01)
            seen = [(supervisor.is_refused, "refused by Xray (exit status 23)" in supervisor.why_down)]
            supervisor.reaches = ()
            await supervisor.instance(PATIENCE)
        seen.append((supervisor.is_refused, bool(supervisor.why_down)))
        assert seen == [(True, True), (False, False)] and supervisor.ends_in_a_row == 0
        nursery.cancel_scope.cancel()


async def test_ends_in_a_row_are_forgotten_once_xray_has_run_for_a_while(
    supervisor: XraySupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpn.agent.xray.supervisor._CALM", 3600.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        for times in (1, 2):
            instance = await supervisor.instance(PATIENCE)
            os.kill(instance.pid, signal.SIGKILL)
            await gone(instance.pid)
            assert await supervisor.has_ended(instance, PATIENCE)
            await supervisor.instance(PATIENCE)
            assert supervisor.ends_in_a_row == times and supervisor.last_end.startswith("it ended with status -9")
        monkeypatch.setattr("vpn.agent.xray.supervisor._CALM", 0.0)
        assert supervisor.ends_in_a_row == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("line", "is_about_one"),
    [
        ("2026/12/01 02:00:00.1 from tcp:203.0.113.7:1234 accepted tcp:example.com:443 [direct] email: abc", True),
        (
            "2026/12/01 02:00:00.1 from 203.0.113.7:1234 rejected  proxy/vless/encoding: invalid request user id: x",
            True,
        ),
        ("2026/12/01 02:00:00.1 [Warning] core: Xray 26.10.10 started", False),
        ("panic: runtime error: invalid memory address or nil pointer dereference", False),
    ],
)
def test_last_words_have_no_line_about_a_customer(line: str, *, is_about_one: bool) -> None:
    assert is_about_a_customer(line) is is_about_one
