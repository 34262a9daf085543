"""Commands about nodes and tunnels: `atlas node …` and `atlas tunnel`."""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path

import click
import trio

from runtime.cli.parameters import Seconds
from vpn.agent.command import run
from vpn.agent.install_command import install
from vpn.agent.settings import read_token
from vpn.errors import TunnelError
from vpn.groups import sole
from vpn.link import VlessLink, parse_link
from vpn.protocol import NodeState
from vpn.settings import NodeSettings
from vpn.tunnel import open_tunnel
from vpn.wire import state_to_json

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def node() -> None:
    """Make this machine a VPN node, run one, or ask one how it is."""


node.add_command(run)
node.add_command(install)


@node.command()
@click.option("--url", required=True, help="Address of the node's agent, like http://127.0.0.1:8700.")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the bearer token.",
)
@click.option("--ca-file", type=_FILE, help="Authority of the agent's certificate; default: the system's.")
@click.option("--certificate", type=_FILE, help="Our certificate, if the agent asks for one.")
@click.option("--key", type=_FILE, help="Its private key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def state(
    url: str, token_file: Path, ca_file: Path | None, certificate: Path | None, key: Path | None, as_json: bool
) -> None:
    """Show a node: version, keys, capabilities, and what links to it say.

    Looking does not count as hearing from the backend. Exit codes: 0 shown, 69 it did not answer so, 78 the token cannot be
    read.
    """
    if key is not None and certificate is None:
        raise click.UsageError("--key needs --certificate")
    ca, ours, its_key = (str(path or "") for path in (ca_file, certificate, key))
    found = trio.run(_state, NodeSettings(url, read_token(token_file), ca, ours, its_key))
    if as_json:
        click.echo(json.dumps(state_to_json(found), indent=2))
        return
    for label, value in _rows(found):
        click.echo(f"{label:<14}{value}")


async def _state(node: NodeSettings) -> NodeState:
    async with node.client(node.url) as client:
        return await client.state()


def _rows(found: NodeState) -> list[tuple[str, str]]:
    inbound = found.inbound
    return [
        ("ready", "yes" if found.ready else f"no: {found.why}"),
        ("xray", f"{found.xray_version or 'down'} (boot {found.boot_id or '-'})"),
        ("agent", f"{found.agent_version} ({found.agent_id})"),
        (
            "keys",
            f"{found.count} wanted: {found.serving} serving, {found.expired} expired, {found.pending} pending",
        ),
        ("digest", found.digest),
        (
            "customers",
            f"{inbound.host}:{inbound.port} {inbound.network}/{inbound.security} flow={inbound.flow or 'none'}",
        ),
        ("can", " ".join(sorted(found.capabilities))),
        ("clock", found.now.isoformat(timespec="seconds")),
    ]


@click.command()
@click.argument("link")
@click.option("--socks", type=click.IntRange(0, 65535), default=0, help="Port of the local proxy; 0 chooses one.")
@click.option("--fetch", "url", help="Fetch this page through the tunnel, print it, and end.")
@click.option("--mux", type=click.IntRange(0, 1024), default=0, help="Carry this many streams in one connection.")
@click.option("--within", type=Seconds(0.1, 3600), default=15.0, show_default=True, help="Seconds for --fetch.")
def tunnel(link: str, socks: int, url: str | None, mux: int, within: float) -> None:
    """Open a tunnel from a VLESS LINK alone ("-": read it from standard input, where no process list shows it).

    Offers SOCKS5 and HTTP on 127.0.0.1 until Ctrl-C. With --fetch, prints the page and exits with 0, or with 69 and the
    reason.
    """
    text = sys.stdin.readline() if link == "-" else link
    trio.run(partial(_tunnel, parse_link(text), socks, url, mux, within))


async def _tunnel(link: VlessLink, socks: int, url: str | None, mux: int, within: float) -> None:
    try:
        async with open_tunnel(link, port=socks, mux=mux) as opened:
            if url is None:
                await _offer(opened.port)
                return
            page = await opened.fetch(url, within=within)
    except BaseExceptionGroup as group:
        raise sole(group) from None
    if page.status >= 400:
        raise TunnelError(f"the tunnel works, but the page answered with HTTP {page.status}")
    sys.stdout.buffer.write(page.body)
    sys.stdout.flush()


async def _offer(port: int) -> None:
    # listening for signals first: whoever reads the line may ask for the end at once
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        click.echo(json.dumps({"socks": f"127.0.0.1:{port}", "http": f"http://127.0.0.1:{port}"}))
        sys.stdout.flush()
        async for _ in signals:
            return
