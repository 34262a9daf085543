"""The commands `atlas node …`: make this machine a node, run one, or ask one.

`atlas node state | list | usage | kick` ask one node's agent, without the backend.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import click
import trio

from runtime.cli import Word
from vpn.agent.install.command import install
from vpn.agent.install.installation import DATA
from vpn.agent.run import run
from vpn.agent.state.owner import disown, nonce_of
from vpn.digest import expiry_seconds
from vpn.node.client import AgentClient
from vpn.node.settings import NodeSettings
from vpn.node.wire import state_to_json
from vpn.protocol import KEY_ID, NodeKey, NodeState, UsagePage
from vpn.token_file import read_token

P = ParamSpec("P")
ClientMaker = Callable[[], AgentClient]

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_KEY = Word(KEY_ID, "a key id: 1 to 64 lower-case letters, digits, dots, dashes or underscores")
_URL = Word(re.compile(r"https?://\S+"), "an address such as http://127.0.0.1:8700")
_OPTIONS = (
    click.option("--url", type=_URL, required=True, help="Address of the node's agent, like http://127.0.0.1:8700."),
    click.option(
        "--token-file",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with the bearer token.",
    ),
    click.option("--ca-file", type=_FILE, help="Authority of the agent's certificate; default: the system's."),
    click.option("--certificate", type=_FILE, help="Our certificate, if the agent asks for one."),
    click.option("--key", "key_file", type=_FILE, help="Its private key."),
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _asking(command: Callable[Concatenate[ClientMaker, P], None]) -> Callable[..., None]:
    """Give a command the options that name a node, and in their place a maker of its client."""

    @wraps(command)
    def run(
        url: str,
        token_file: Path,
        ca_file: Path | None,
        certificate: Path | None,
        key_file: Path | None,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        if key_file is not None and certificate is None:
            raise click.UsageError("--key needs --certificate")
        ca, ours, its_key = (str(path or "") for path in (ca_file, certificate, key_file))
        settings = NodeSettings(url, read_token(token_file), ca, ours, its_key)
        command(lambda: settings.client(url), *args, **kwargs)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


@click.command()
@_asking
@_AS_JSON
def state(client: ClientMaker, *, as_json: bool) -> None:
    """Show a node: version, keys, capabilities, and what links to it say.

    Looking does not count as hearing from the backend. Exit codes: 0 shown, 69 it did not answer so, 78 the token cannot be
    read.
    """

    async def ask() -> NodeState:
        async with client() as agent:
            return await agent.state()

    found = trio.run(ask)
    if as_json:
        click.echo(json.dumps(state_to_json(found), indent=2))
        return
    for label, value in _rows(found):
        click.echo(f"{label:<14}{value}")


@click.command("list")
@_asking
@_AS_JSON
def list_keys(client: ClientMaker, *, as_json: bool) -> None:
    """List the keys that the node is to serve: what it does with each, generation, end, and the beginning of its UUID.

    Exit codes: 0 all of them were listed, 69 not.
    """

    async def ask() -> list[NodeKey]:
        async with client() as agent:
            return [key async for key in agent.list_all()]

    found = trio.run(ask)
    if as_json:
        click.echo(json.dumps([_facts(key) for key in found], indent=2))
        return
    for key in found:
        end = "no end" if key.spec.expires_at is None else key.spec.expires_at.isoformat(timespec="seconds")
        click.echo(f"{key.spec.key_id:<40} {key.state.value:<8} {key.spec.generation:>6} {end:<25} {_shown(key)}")


@click.command()
@_asking
@_AS_JSON
def usage(client: ClientMaker, *, as_json: bool) -> None:
    """Show the bytes of every key since this boot of Xray: sent by the customer, received by the customer.

    Nothing is reset by reading. Exit codes: 0 shown, 69 not.
    """

    async def ask() -> UsagePage:
        async with client() as agent:
            return await agent.usage_all()

    found = trio.run(ask)
    if as_json:
        users = [{"key_id": user.key_id, "uplink": user.uplink, "downlink": user.downlink} for user in found.users]
        click.echo(json.dumps({"boot_id": found.boot_id, "users": users}, indent=2))
        return
    for user in found.users:
        click.echo(f"{user.key_id:<40} {user.uplink:>15} {user.downlink:>15}")


_DATA = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command()
@_asking
@click.option(
    "--data-dir", type=_DATA, help="The node's data directory, on its own host: only its owner may cut connections."
)
@click.argument("key_id", type=_KEY)
def kick(client: ClientMaker, *, data_dir: Path | None, key_id: str) -> None:
    """Cut the open connections of the key KEY_ID. Its customer may connect again at once.

    On the node's host, with --data-dir: a node that an installation rules takes this from nobody else. Exit codes: 0 done, 69
    not, or the node has no such key.
    """

    async def ask() -> int:
        async with client() as agent:
            agent.owner = None if data_dir is None else partial(nonce_of, data_dir)
            return (await agent.kick(key_id)).cut

    click.echo(f"connections cut: {trio.run(ask)}")


@click.command("disown")
@click.option("--data-dir", type=_DATA, default=DATA, show_default=True, help="The node's data directory.")
def disown_node(data_dir: Path) -> None:
    """Let no installation rule this node any more; prints the one-time code that the next one needs.

    Run it on the node's host. Customers are served on; changes wait until `atlas node own NAME --code CODE` was run where the
    next backend is. Exit codes: 0 done, 77 the data directory cannot be written.
    """
    code = disown(data_dir)
    click.echo(f"{code}\ngive it to the next owner: atlas node own NAME --code {code}")


def _facts(key: NodeKey) -> dict[str, object]:
    spec = key.spec
    return {
        "key_id": spec.key_id,
        "state": key.state.value,
        "generation": spec.generation,
        "expires_at": expiry_seconds(spec.expires_at),
        "uuid": _shown(key),
    }


def _shown(key: NodeKey) -> str:
    return f"{str(key.spec.uuid)[:8]}…"


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


@click.group()
def node() -> None:
    """Make this machine a VPN node, run one, or ask one how it is."""


for command in (run, install, state, list_keys, usage, kick, disown_node):
    node.add_command(command)
