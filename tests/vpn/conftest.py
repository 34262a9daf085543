"""Fixtures of real parts: an origin to reach, and a node agent with a real Xray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fork_server import ForkServer, shared_fork_server
from tests.vpn.agents import RunningAgent, running_agent
from tests.vpn.origin import Origin, origin_server


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """A web server that only loopback reaches."""
    async with origin_server() as serving:
        yield serving


@pytest.fixture(scope="session")
def fork_server() -> ForkServer:
    """Where agents are forked from."""
    return shared_fork_server("vpn.agent")


@pytest.fixture
async def agent(tmp_path: Path, fork_server: ForkServer) -> AsyncIterator[RunningAgent]:
    """A fresh node agent on loopback."""
    async with running_agent(tmp_path / "node", server=fork_server) as running:
        yield running
