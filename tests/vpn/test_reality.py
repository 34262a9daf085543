"""A node as real customers use it: REALITY with Vision, and an agent behind TLS."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from runtime.config.secret import Secret
from tests.vpn.agents import TOKEN, RunningAgent, arguments, key, running_agent
from tests.vpn.certificate import make_certificate
from tests.vpn.fork_server import ForkServer
from tests.vpn.origin import PAGE, Origin
from tests.vpn.streams import open_stream, read_until_cut
from vpn.client import AgentClient
from vpn.errors import NodeUnreachable, TunnelError
from vpn.link import parse_link
from vpn.protocol import FLOW_VISION
from vpn.settings import NodeSettings
from vpn.tunnel import open_tunnel
from vpn.xray import x25519

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
                with trio.fail_after(1):
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
        for link in wrong:
            async with open_tunnel(link) as tunnel:
                with pytest.raises(TunnelError):
                    await tunnel.fetch(origin.url, within=5)


async def test_a_restart_keeps_the_reality_keys(tmp_path: Path, fork_server: ForkServer) -> None:
    async with reality_agent(tmp_path, fork_server) as first:
        before = first.facts
    async with reality_agent(tmp_path, fork_server) as second:
        assert second.facts == before
        assert len(before.public_key) == 43 and before.short_id


async def test_an_agent_behind_tls_is_reached_with_its_authority_only(tmp_path: Path, fork_server: ForkServer) -> None:
    certificate, private = make_certificate(tmp_path, "node.example")
    argv = arguments(tmp_path / "node")
    config = tmp_path / "node.toml"
    config.write_text(
        f'data_dir = "node"\ntoken_file = "node.token"\nlisten = "127.0.0.1:0"\n\n[tls]\ncertificate = "{certificate.name}"\n'
        f'key = "{private.name}"\n'
    )
    async with running_agent(
        tmp_path / "node", argv=[*argv[:3], "--config", str(config), "--parent-stdin"], server=fork_server
    ) as agent:
        assert agent.url.startswith("https://")
        trusting = NodeSettings(url=agent.url, token=Secret(TOKEN), ca_file=str(certificate))
        async with trusting.client("node") as client:
            assert (await client.state()).ready
        async with AgentClient("node", agent.url, Secret(TOKEN)) as suspicious:
            with pytest.raises(NodeUnreachable):
                await suspicious.state()


async def test_only_clients_with_our_certificate_are_let_in_where_that_is_asked(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    server, server_key = make_certificate(tmp_path, "node.example")
    ours, our_key = make_certificate(tmp_path, "backend.example")
    argv = arguments(tmp_path / "node")
    config = tmp_path / "node.toml"
    config.write_text(
        f'data_dir = "node"\ntoken_file = "node.token"\n\n[tls]\ncertificate = "{server.name}"\nkey = "{server_key.name}"\n'
        f'client_ca = "{ours.name}"\n'
    )
    async with running_agent(
        tmp_path / "node", argv=[*argv[:3], "--config", str(config), "--parent-stdin"], server=fork_server
    ) as agent:
        known = NodeSettings(
            url=agent.url,
            token=Secret(TOKEN),
            ca_file=str(server),
            certificate_file=str(ours),
            key_file=str(our_key),
        )
        async with known.client("node") as client:
            assert (await client.state()).ready
        unknown = NodeSettings(url=agent.url, token=Secret(TOKEN), ca_file=str(server))
        async with unknown.client("node") as client:
            with pytest.raises(Exception, match="node node"):
                await client.state()
