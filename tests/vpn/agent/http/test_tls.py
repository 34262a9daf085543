"""An agent behind TLS, and one that asks its clients for certificates of an authority."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner, Result

from runtime.config import Secret
from runtime.http import new_client
from tests.fork_server import ForkServer
from tests.vpn.agents import TOKEN, RunningAgent, arguments, running_agent
from tests.vpn.certificate import Authority
from vpn.commands.node import node
from vpn.errors import NodeError, NodeRefused, NodeTlsFailed, NodeUnauthorized, NodeUnreachable
from vpn.node.client import AgentClient
from vpn.node.settings import NodeSettings


@contextlib.asynccontextmanager
async def tls_agent(
    directory: Path, server: ForkServer, name: str = "node", **tls: Path
) -> AsyncIterator[RunningAgent]:
    """An agent configured by a file, with this [tls] table."""
    argv = arguments(directory / name)
    config = directory / f"{name}.toml"
    table = "\n".join(f'{setting} = "{path.name}"' for setting, path in tls.items())
    config.write_text(f'data_dir = "{name}"\ntoken_file = "{name}.token"\n\n[tls]\n{table}\n')
    command = [*argv[:3], "--config", str(config), "--parent-stdin"]
    async with running_agent(directory / name, argv=command, server=server) as agent:
        assert agent.url.startswith("https://")
        yield agent


async def test_an_agent_behind_tls_is_reached_with_its_authority_only(tmp_path: Path, fork_server: ForkServer) -> None:
    authority = Authority(tmp_path, "authority.example")
    certificate, key = authority.issue("node.example")
    async with tls_agent(tmp_path, fork_server, certificate=certificate, key=key) as agent:
        trusting = NodeSettings(url=agent.url, token=Secret(TOKEN), ca_file=str(authority.file))
        async with trusting.client("node") as client:
            assert (await client.state()).ready
        async with AgentClient("node", agent.url, Secret(TOKEN)) as suspicious:
            with pytest.raises(NodeTlsFailed, match=r"authority of its certificate is not known here.*`ca_file`"):
                await suspicious.state()
        stranger = Authority(tmp_path, "stranger.example")
        async with attrs.evolve(trusting, ca_file=str(stranger.file)).client("node") as client:
            with pytest.raises(NodeTlsFailed, match=r"authority of its certificate is not known here.*`ca_file`"):
                await client.state()
        async with attrs.evolve(trusting, url=agent.url.replace("127.0.0.1", "localhost")).client("node") as client:
            with pytest.raises(NodeTlsFailed, match=r"certificate is not made for localhost.*`url`.*`tls.certificate`"):
                await client.state()


async def test_only_certificates_of_our_authority_are_let_in_and_only_with_the_token(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    ours, stranger = Authority(tmp_path, "ours.example"), Authority(tmp_path, "stranger.example")
    certificate, key = ours.issue("node.example")
    known, ended, foreign = ours.issue("backend"), ours.issue("old-backend", days=-1), stranger.issue("somebody")
    async with tls_agent(tmp_path, fork_server, certificate=certificate, key=key, client_ca=ours.file) as agent:
        plain = NodeSettings(url=agent.url, token=Secret(TOKEN), ca_file=str(ours.file), within=3.0)

        def with_certificate(pair: tuple[Path, Path], token: str = TOKEN) -> NodeSettings:
            return attrs.evolve(plain, certificate_file=str(pair[0]), key_file=str(pair[1]), token=Secret(token))

        async with with_certificate(known).client("node") as client:
            assert (await client.state()).ready
        for settings, told in (
            (plain, "asks for a client certificate, and we have none: set `certificate_file` and `key_file`"),
            (with_certificate(ended), r"our client certificate \(`certificate_file`, `key_file`\) has expired"),
            (with_certificate(foreign), "does not know the authority of our client certificate.*`tls.client_ca`"),
        ):
            async with settings.client("node") as client:
                with pytest.raises(NodeTlsFailed, match=told):
                    await client.state()
                with pytest.raises(NodeTlsFailed, match=told):
                    await client.remove("k", 1)  # refused, not in doubt: the node has not read it
        async with with_certificate(known, "not-the-right-token").client("node") as client:
            with pytest.raises(NodeUnauthorized):
                await client.state()
        async with with_certificate(known).client("node") as client:
            assert (await client.state()).ready, "those who were turned away did no harm"


async def test_an_operator_looks_at_a_node_behind_tls_and_is_told_what_is_wrong(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    authority = Authority(tmp_path, "authority.example")
    certificate, key = authority.issue("node.example")
    mine, my_key = authority.issue("operator")
    async with tls_agent(tmp_path, fork_server, certificate=certificate, key=key, client_ca=authority.file) as agent:

        async def look(*options: str) -> Result:
            asked = ["state", "--url", agent.url, "--token-file", str(tmp_path / "node.token"), *options]
            return await trio.to_thread.run_sync(lambda: CliRunner().invoke(node, asked))

        trusted = ("--ca-file", str(authority.file))
        shown = await look(*trusted, "--certificate", str(mine), "--key", str(my_key))
        assert shown.exit_code == 0 and "0 wanted" in shown.output
        unknown = await look()
        assert isinstance(unknown.exception, NodeUnreachable) and "certificate" in str(unknown.exception)
        assert isinstance((await look(*trusted)).exception, NodeError), "it asks for a certificate of ours"
    assert (
        "--key needs --certificate"
        in CliRunner()
        .invoke(node, ["state", "--url", agent.url, "--token-file", str(tmp_path / "node.token"), "--key", str(my_key)])
        .output
    )


async def test_handshakes_that_fail_are_counted_and_leave_no_traceback(
    tmp_path: Path, fork_server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """Anybody on the internet may knock at this port."""
    authority = Authority(tmp_path, "authority.example")
    certificate, key = authority.issue("node.example")
    async with tls_agent(tmp_path, fork_server, certificate=certificate, key=key) as agent:
        port = int(agent.url.rpartition(":")[2])
        for knock in (b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100, b""):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(knock)
                await stream.send_eof()
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
        trusting = NodeSettings(ca_file=str(authority.file)).context("node")
        async with new_client(agent.url, headers={"authorization": f"Bearer {TOKEN}"}, verify=trusting) as http:
            assert "atlas_node_tls_failed_total 3" in (await http.get("/metrics")).text
        agent.child.send_signal(signal.SIGTERM)
        await agent.child.wait()
    said = capfd.readouterr().err
    assert "Traceback" not in said and "handshake" not in said and "ERROR" not in said


async def test_plain_http_to_an_agent_behind_tls_is_turned_away(tmp_path: Path, fork_server: ForkServer) -> None:
    authority = Authority(tmp_path, "authority.example")
    certificate, key = authority.issue("node.example")
    async with tls_agent(tmp_path, fork_server, certificate=certificate, key=key) as agent:
        plain = agent.url.replace("https://", "http://")
        async with AgentClient("node", plain, Secret(TOKEN), repeats=0, within=3.0) as client:
            with pytest.raises(NodeTlsFailed, match="it speaks TLS, and its url says http: write https://"):
                await client.state()
        async with new_client(agent.url, verify=NodeSettings(ca_file=str(authority.file)).context("node")) as http:
            assert (await http.get("/v1/state")).status_code == 401


async def test_an_expired_certificate_and_a_node_without_tls_are_named(tmp_path: Path, fork_server: ForkServer) -> None:
    authority = Authority(tmp_path, "authority.example")
    certificate, key = authority.issue("node.example", days=-1)
    async with tls_agent(tmp_path, fork_server, certificate=certificate, key=key) as agent:
        settings = NodeSettings(url=agent.url, token=Secret(TOKEN), ca_file=str(authority.file))
        async with settings.client("node") as client:
            with pytest.raises(NodeTlsFailed, match=r"its certificate has expired: renew `tls.certificate`"):
                await client.state()
    async with running_agent(tmp_path / "plain", server=fork_server) as agent:
        url = agent.url.replace("http://", "https://")
        async with attrs.evolve(settings, url=url).client("node") as client:
            with pytest.raises(
                NodeTlsFailed, match=r"it speaks plain HTTP, and its url says https: give it a \[tls\] table"
            ):
                await client.state()


def test_certificates_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_text("no certificate")
    for settings in (
        NodeSettings(url="https://node.example", token=Secret(TOKEN), ca_file=str(tmp_path / "missing")),
        NodeSettings(url="https://node.example", token=Secret(TOKEN), ca_file=str(tmp_path / "rubbish")),
        NodeSettings(url="https://node.example", token=Secret(TOKEN), certificate_file=str(tmp_path / "rubbish")),
    ):
        with pytest.raises(NodeRefused, match="node paris: its certificates cannot be used"):
            settings.client("paris")
