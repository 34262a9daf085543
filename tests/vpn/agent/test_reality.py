"""A node as real customers use it: REALITY with Vision."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from tests.fork_server import ForkServer
from tests.run_queue import at_most
from tests.vpn.agents import RunningAgent, arguments, key, running_agent
from tests.vpn.certificate import make_certificate
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_until_cut
from vpn.errors import TunnelError
from vpn.link import VlessLink, parse_link
from vpn.protocol import FLOW_VISION
from vpn.xray import x25519
from vpn.xray.tunnel import open_tunnel

DECOY = "decoy.example"


@contextlib.asynccontextmanager
async def decoy_server(certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """An HTTPS server of somebody else, as REALITY shows it to strangers; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with contextlib.suppress(trio.BrokenResourceError, ssl.SSLError):
            await stream.do_handshake()
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ndecoy")

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, serve, listeners))
        inner = listeners[0].transport_listener
        assert isinstance(inner, trio.SocketListener)
        yield inner.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def reality_agent(directory: Path, fork_server: ForkServer) -> AsyncIterator[RunningAgent]:
    """An agent with REALITY, configured by a file as on a real host. Customers may reach this machine's origin there
    only because `reaches` allows it."""
    async with decoy_server(make_certificate(directory, DECOY)) as port:
        argv = arguments(directory / "node")
        config = directory / "node.toml"
        config.write_text(
            f'data_dir = "node"\ntoken_file = "node.token"\nreaches = ["127.0.0.0/8"]\n\n[inbound]\nhost = "127.0.0.1"\n'
            f'security = "reality"\ntarget = "127.0.0.1:{port}"\nserver_names = ["{DECOY}"]\n'
        )
        command = [*argv[:3], "--config", str(config), "--parent-stdin"]
        async with running_agent(directory / "node", argv=command, server=fork_server) as agent:
            yield agent


@pytest.mark.parametrize("flow", [FLOW_VISION, ""], ids=["vision", "no-flow"])
async def test_a_generated_reality_link_reaches_the_origin_until_it_is_removed(
    tmp_path: Path, origin: Origin, flow: str, fork_server: ForkServer
) -> None:
    async with reality_agent(tmp_path, fork_server) as agent, agent.client() as client:
        assert agent.facts.flow == FLOW_VISION
        spec = key("customer", flow=flow)
        await client.put(spec)
        link = parse_link(agent.link(spec).render())
        async with open_tunnel(link) as tunnel:
            assert (await tunnel.fetch(origin.url, within=30)).body == PAGE
            async with open_stream(tunnel, origin) as stream:
                assert (await client.remove("customer", 1)).cut >= 1
                with at_most(1):
                    await read_until_cut(stream)
            with pytest.raises(TunnelError):
                await tunnel.fetch(origin.url)


async def test_a_link_of_the_wrong_flow_key_or_short_id_is_not_served(
    tmp_path: Path, origin: Origin, fork_server: ForkServer
) -> None:
    async with reality_agent(tmp_path, fork_server) as agent, agent.client() as client:
        spec = key("customer", flow=FLOW_VISION)
        await client.put(spec)
        good = agent.link(spec)
        async with open_tunnel(good) as tunnel:
            await tunnel.fetch(origin.url, within=30)
        wrong = [
            attrs.evolve(good, flow=""),
            attrs.evolve(good, short_id="00"),
            attrs.evolve(good, public_key=x25519.generate().public),
        ]
        async with trio.open_nursery() as nursery:
            for link in wrong:
                nursery.start_soon(expect_refused, link, origin)


async def expect_refused(link: VlessLink, origin: Origin) -> None:
    """Nothing comes through this link."""
    async with open_tunnel(link) as tunnel:
        with pytest.raises(TunnelError):
            await tunnel.fetch(origin.url, within=3)


async def test_a_restart_keeps_the_reality_keys(tmp_path: Path, fork_server: ForkServer) -> None:
    async with reality_agent(tmp_path, fork_server) as first:
        before = first.facts
    async with reality_agent(tmp_path, fork_server) as second:
        assert second.facts == before
        assert len(before.public_key) == 43 and before.short_id
