"""The agent's process from start to end, and `atlas node run`, which is it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from runtime import AtlasError, Systemd, get_logger, unwrap_group
from runtime.config import Secret
from runtime.http import HttpServer, is_loopback, open_listener, url_of
from runtime.log import start as start_log
from runtime.log import stop as stop_log
from vpn.agent.config.settings import TAG, AgentSettings, check_settings, load_settings, tls_context
from vpn.agent.http.api import make_app
from vpn.agent.http.auth import count_failed_handshake
from vpn.agent.http.report import Reporter
from vpn.agent.state import files
from vpn.agent.state.clock import ClockFile, NodeClock
from vpn.agent.state.identity import load_identity, save_identity
from vpn.agent.state.owner import Ownership
from vpn.agent.state.store import open_store
from vpn.agent.xray.background_checks import BackgroundChecks
from vpn.agent.xray.node import AgentNode
from vpn.agent.xray.supervisor import XraySupervisor
from vpn.errors import AgentMisconfigured, ListenRefused
from vpn.ports import choose_lasting, is_free
from vpn.token_file import read_token
from vpn.xray.config import Inbound, Reality

log = get_logger(__name__)

_KEPT_PORT_SECONDS: Final = 2.0
_LOOK_AGAIN: Final = 0.02
_DAY: Final = 86_400.0
_STOP_SECONDS: Final = 1.0


async def run_agent(settings: AgentSettings, *, parent_stdin: bool) -> None:
    """Run the node until SIGTERM, SIGINT or, with `parent_stdin`, the end of standard input.

    Once Xray accepts connections, or could not be started, prints one line of JSON on standard output:
    {"listening": "http://127.0.0.1:8700", "inbound": {…}}. Everything else goes to standard error. Raises the
    AgentError that keeps it from starting; an Xray that does not start is told by the interface, and started again. Started
    by systemd, it says there when it is ready, and that it is alive.
    """
    check_settings(settings)
    token = read_token(settings.token_file)
    tls = None if settings.tls is None else tls_context(settings.tls)
    files.make_private_directory(settings.data_dir)
    lock = files.lock_directory(settings.data_dir)
    files.remove_unfinished(settings.data_dir)
    systemd = Systemd.from_environment()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_until_signal, nursery.cancel_scope)
            if parent_stdin:
                nursery.start_soon(_until_end_of_input, nursery.cancel_scope)
            await _serve(settings, token, tls, systemd)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise unwrap_group(group) from None
    finally:
        systemd.stopping()
        systemd.close()
        os.close(lock)


async def _serve(settings: AgentSettings, token: Secret, tls: ssl.SSLContext | None, systemd: Systemd) -> None:
    identity = load_identity(settings.data_dir)
    clock, clock_file = NodeClock(settings.clock_offset), ClockFile(settings.data_dir)
    contact = clock_file.load(settings.expiry, clock)
    is_private = is_loopback(settings.listen_host) or (settings.tls is not None and settings.tls.client_ca is not None)
    ownership = Ownership(settings.data_dir, is_private)
    store, remark = open_store(settings.data_dir, clock.now)
    if remark:
        log.warning(remark)
    with contextlib.ExitStack() as opened:
        opened.callback(store.close)
        listener = opened.enter_context(_listen(settings, identity.listen_port))  # until the server takes it over
        inbound_port = settings.inbound.port or identity.inbound_port or choose_lasting(settings.inbound.listen)
        # right after a kill, the Xray before this one may not have let go of it yet
        patience = _KEPT_PORT_SECONDS if inbound_port == identity.inbound_port else 0.0
        await wait_until_free(settings.inbound.listen, inbound_port, patience)
        kept = attrs.evolve(identity, inbound_port=inbound_port, listen_port=listener.getsockname()[1])
        if kept != identity:
            save_identity(settings.data_dir, kept)
        reality = None
        if settings.inbound.security == "reality":
            reality = Reality(kept.private_key, kept.short_id, settings.inbound.target, settings.server_names)
        xray = XraySupervisor(
            directory=settings.data_dir,
            inbound=Inbound(TAG, settings.inbound.listen, inbound_port, reality),
            reaches=settings.private_networks,
            users=lambda: node.convergence.users(),
            on_access=lambda instance, access: node.on_access(instance, access),
            clock=clock.now,
        )
        facts = settings.facts(inbound_port, kept.public_key, kept.short_id)
        node = AgentNode(store, xray, contact, facts, clock)
        reporter = Reporter(kept.agent_id, node, clock, clock_file, ownership)
        async with trio.open_nursery() as nursery:
            await nursery.start(xray.run)
            nursery.start_soon(node.run)
            nursery.start_soon(BackgroundChecks(node, settings.verify_every).run)
            server = HttpServer(
                "agent",
                make_app(node, reporter, ownership, token, settings.http),
                settings.http,
                _note_crash,
                tls=tls,
                handshake_failed=count_failed_handshake,
                grace=_STOP_SECONDS,
            )
            listening = url_of(listener, "http" if tls is None else "https")
            nursery.start_soon(server.run, listener, trio.Event())
            _announce({"listening": listening, "inbound": attrs.asdict(facts), "pid": os.getpid()})
            customers = (
                f"customers on {facts.host}:{facts.port}" if xray.current else "Xray does not start, see the log"
            )
            systemd.status(f"{customers}, the backend on {listening}")
            systemd.ready()
            await _keep_alive(systemd)


async def _keep_alive(systemd: Systemd) -> None:
    # from the loop that does all the work: if that stands still, systemd may end it
    while True:
        systemd.alive()
        await trio.sleep((systemd.watchdog_seconds or _DAY) / 3)


async def _until_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("asked to stop", signal=signal.Signals(number).name)
            scope.cancel()


async def _until_end_of_input(scope: trio.CancelScope) -> None:
    stream = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    async with stream:
        while await stream.receive_some(4096):
            pass
    log.info("standard input has ended: the process that started this agent is gone")
    scope.cancel()


def _listen(settings: AgentSettings, kept: int) -> socket.socket:
    host, asked = settings.listen_host, settings.listen_port
    # a port that was chosen here may be chosen anew, one that was asked for may not
    for port in (asked,) if asked else (kept, 0) if kept else (choose_lasting(host), 0):
        try:
            return open_listener(host, port)
        except OSError as error:
            if asked:
                raise ListenRefused(
                    f"cannot listen on {settings.listen}: {error.strerror}; stop what uses it, or change `listen` (--listen)"
                ) from error
    raise ListenRefused(f"cannot listen on {host}: no port is free")


async def wait_until_free(host: str, port: int, patience: float) -> None:
    """Return once customers' port can be listened on. Raises ListenRefused if it cannot within `patience` seconds."""
    deadline = trio.current_time() + patience
    while not _is_free(host, port):
        if trio.current_time() >= deadline:
            raise ListenRefused(
                f"cannot listen on {host}:{port} for customers: the port is taken or not allowed. Their links name it, so it "
                "is not changed by itself: free it, or set inbound.port (--inbound-port) and hand out new links"
            )
        await trio.sleep(_LOOK_AGAIN)


def _is_free(host: str, port: int) -> bool:
    try:
        return is_free(host, port)
    except OSError as error:
        raise ListenRefused(f"cannot listen on {host}:{port}: {error.strerror}; correct inbound.listen") from error


def _note_crash(error: str) -> None:
    log.error("a request or its connection failed", what=error)


def _announce(facts: dict[str, object]) -> None:
    try:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        log.warning("standard output is closed: the line that says where the agent listens was lost")


def main(settings: AgentSettings, *, parent_stdin: bool, log_level: str = "info", log_format: str = "text") -> None:
    """Run the agent in this process; logs go to standard error."""
    start_log(log_level, log_format, out=2, err=2)
    try:
        trio.run(partial(run_agent, settings, parent_stdin=parent_stdin))
    except Exception as error:
        if not isinstance(error, AtlasError):
            log.critical("the agent ended by an unexpected error", error=error)
        raise
    finally:
        stop_log()


_PR_SET_PDEATHSIG = 1
# What cannot be read is for the agent itself to refuse, with the exit code that says so.
_PATH = click.Path(path_type=Path, readable=False)


@click.command("run")
@click.option("--config", type=_PATH, help="Configuration file (TOML).")
@click.option("--data-dir", type=_PATH, help="Where keys and identity are kept.")
@click.option("--listen", help="HOST:PORT of the HTTP interface; port 0 chooses one.", show_default="127.0.0.1:0")
@click.option("--inbound-port", type=click.IntRange(0, 65535), help="Port for customers; 0 chooses one and keeps it.")
@click.option("--token-file", type=_PATH, help="File with the bearer token.")
@click.option(
    "--clock-offset", type=float, help="Shift the clock by seconds; the backend may then move it. Demonstrations only."
)
@click.option("--parent-stdin", is_flag=True, help="End when standard input does.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option("--log-format", default="text", show_default=True, type=click.Choice(["text", "json"]))
def run(
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    inbound_port: int | None,
    token_file: Path | None,
    clock_offset: float | None,
    parent_stdin: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Run a VPN node: Xray, the keys it serves, and the interface the backend drives it by.

    With --config everything is read from there and flags override it; without, --data-dir and --token-file make a node
    for this machine only. Prints one line of JSON when it answers and Xray was started. Exit codes: 0 stopped, 69 a port is
    taken, 77 data directory not accessible, 78 configuration wrong or data damaged.
    """
    if parent_stdin:
        # a belt to the end of input: the kernel ends this process if the thread that started it ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    main(
        _settings(config, data_dir, listen, inbound_port, token_file, clock_offset),
        parent_stdin=parent_stdin,
        log_level=log_level,
        log_format=log_format,
    )


def _settings(
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    inbound_port: int | None,
    token_file: Path | None,
    clock_offset: float | None,
) -> AgentSettings:
    if config is not None:
        settings = load_settings(config)
    elif data_dir is None or token_file is None:
        raise AgentMisconfigured("give --config FILE, or --data-dir DIR and --token-file FILE")
    else:
        settings = AgentSettings(data_dir, token_file)
    inbound = settings.inbound
    return attrs.evolve(
        settings,
        data_dir=(data_dir or settings.data_dir).absolute(),
        token_file=token_file or settings.token_file,
        listen=listen or settings.listen,
        inbound=inbound if inbound_port is None else attrs.evolve(inbound, port=inbound_port),
        clock_offset=settings.clock_offset if clock_offset is None else clock_offset,
    )
