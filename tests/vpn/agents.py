"""Real node agents for tests: separate processes with a real Xray, driven as the supervisor drives them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import attrs
import trio

from runtime.child_process import PIPE, ChildProcess, spawn
from runtime.config import Secret
from runtime.http import new_client
from tests.fork_server import ForkServer
from vpn.agent.state.clock import KnownTime, boot_of_host, elapsed
from vpn.agent.state.owner import nonce_of
from vpn.agent.state.records import encode_line
from vpn.link import VlessLink, link_for
from vpn.node.client import AgentClient
from vpn.node.wire import inbound_from_json
from vpn.protocol import InboundFacts, KeySpec

TOKEN = "a-token-for-tests-only"


@attrs.define(eq=False)
class RunningAgent:
    """An agent that accepts customers."""

    child: ChildProcess
    directory: Path
    url: str
    facts: InboundFacts

    def client(self, token: str = TOKEN) -> AgentClient:
        """A client of somebody on the node's host, with the right token, unless another is given."""
        return AgentClient("tested", self.url, Secret(token), owner=lambda: nonce_of(self.directory))

    def backend(self, ahead: float = 0.0) -> AgentClient:
        """A client of somebody who can extend keys and says what time it is: ours, `ahead` seconds of it if given."""
        return attrs.evolve(self.client(), can_extend=True, time=lambda: time.time() + ahead)

    def link(self, spec: KeySpec) -> VlessLink:
        """The customer's link."""
        return link_for(spec, self.facts)

    def xray_pids(self) -> list[int]:
        """The agent's Xray processes that are alive."""
        return children_of(self.child.pid)

    async def kill(self) -> None:
        """SIGKILL the agent alone, not its group, and wait for its end."""
        self.child.send_signal(signal.SIGKILL)
        await self.child.wait()


def unheard_since(directory: Path, seconds: float, now: float | None = None) -> None:
    """Let the agent of this data directory, which is not running, have heard the backend so long ago, and take it to be `now`."""
    directory.mkdir(exist_ok=True)
    now = now or time.time()
    known = KnownTime(now, elapsed(), boot_of_host(), 0.0, now - seconds, 0.0)
    (directory / "clock").write_bytes(encode_line(attrs.asdict(known)))


def children_of(pid: int) -> list[int]:
    """Children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def key(
    name: str, *, uuid: UUID | None = None, generation: int = 1, expires_at: datetime | None = None, flow: str = ""
) -> KeySpec:
    """A key with a fresh UUID."""
    return KeySpec(name, uuid or uuid4(), flow=flow, generation=generation, expires_at=expires_at)


def arguments(directory: Path, *extra: str) -> list[str]:
    """How an agent is started on this directory."""
    token_file = directory.parent / f"{directory.name}.token"
    if not token_file.exists():
        token_file.write_text(TOKEN)
    return [sys.executable, "-m", "vpn.agent", "--data-dir", str(directory), "--token-file", str(token_file), *extra]


async def read_line(child: ChildProcess) -> bytes:
    """The first line of a child's standard output; what there is of it, if the child ends before."""
    assert child.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        part = await child.stdout.receive_some(1 << 16)
        if not part:
            return line
        line += part
    return line


@contextlib.asynccontextmanager
async def running_agent(
    directory: Path,
    *extra: str,
    argv: Sequence[str] | None = None,
    server: ForkServer | None = None,
    env: Mapping[str, str] | None = None,
    within: float = 60.0,
) -> AsyncIterator[RunningAgent]:
    """An agent for as long as the block lasts. Its log goes to the test's standard error. With `server` it is forked from
    there, which takes a tenth of the time of a new process."""
    command = list(argv or arguments(directory, "--parent-stdin", *extra))
    child = (
        server.fork(command[3:], env=env)
        if server
        else spawn(command, name="agent", keep_stdin=True, stdout=PIPE, env=env)
    )
    try:
        with trio.fail_after(within):
            line = await read_line(child)
        assert line, f"the agent ended with {await child.wait()} before it was ready"
        facts = json.loads(line)
        yield RunningAgent(child, directory, facts["listening"], inbound_from_json(facts["inbound"]))
    finally:
        await child.close()


@contextlib.asynccontextmanager
async def configured_agent(directory: Path, server: ForkServer, settings: str) -> AsyncIterator[RunningAgent]:
    """An agent configured by a file, with these settings."""
    argv = arguments(directory / "node")
    config = directory / "node.toml"
    config.write_text(f'data_dir = "node"\ntoken_file = "node.token"\n{settings}\n')
    command = [*argv[:3], "--config", str(config), "--parent-stdin"]
    async with running_agent(directory / "node", argv=command, server=server) as agent:
        yield agent


async def measured(agent: RunningAgent, name: str) -> float:
    """A metric of the agent."""
    async with new_client(agent.url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))
