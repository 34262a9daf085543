"""`atlas node run`."""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path

import attrs
import click

from vpn.agent.run import main
from vpn.agent.settings import AgentSettings, load_settings
from vpn.errors import AgentMisconfigured

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
    for this machine only. Prints one line of JSON when customers can connect. Exit codes: 0 stopped, 69 a port is
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
