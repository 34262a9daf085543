"""What an agent writes to its log: enough to help, and nobody's key."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.fork_server import ForkServer
from tests.vpn.agents import TOKEN, key, running_agent
from tests.vpn.origin import Origin
from vpn.errors import TunnelError
from vpn.xray.tunnel import open_tunnel


async def test_xrays_own_lines_are_kept_without_the_keys_in_them(
    tmp_path: Path, origin: Origin, fork_server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    served, stranger = key("customer"), key("stranger")
    async with running_agent(tmp_path / "node", "--log-level", "debug", server=fork_server) as agent:
        async with agent.client() as client:
            await client.put(served)
        async with open_tunnel(agent.link(served)) as tunnel:
            await tunnel.fetch(origin.url)
        async with open_tunnel(agent.link(stranger)) as tunnel:
            with pytest.raises(TunnelError):
                await tunnel.fetch(origin.url)
        agent.child.send_signal(signal.SIGTERM)
        await agent.child.wait()
    said = capfd.readouterr().err
    assert f"invalid request user id: {str(stranger.uuid)[:8]}" in said, "Xray says who was refused"
    for secret in (str(served.uuid), str(stranger.uuid), stranger.uuid.hex, TOKEN):
        assert secret not in said
