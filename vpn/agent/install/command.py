"""`atlas node install`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from runtime.cli import Text
from vpn.agent.config.settings import AgentSettings
from vpn.agent.install.installation import (
    CONFIG,
    TOKEN,
    UNIT,
    Installation,
    InstalledItem,
    InstallItem,
    plan_installation,
    program,
    unreadable_for_others,
)
from vpn.agent.install.installation import install as install_items
from vpn.agent.install.systemd_unit import NAME
from vpn.errors import InstallRefused, NotStarted

_LINE = Text(may_be_empty=True)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("install")
@click.option("--host", type=_LINE, default="", help="Name or address of this host in customers' links.")
@click.option("--target", type=_LINE, default="", help="HTTPS server that strangers are shown (REALITY), as HOST:PORT.")
@click.option(
    "--server-name", "names", type=_LINE, multiple=True, help="Name that the target answers to; default: its host."
)
@click.option("--port", default=443, show_default=True, type=click.IntRange(1, 65535), help="Port for customers.")
@click.option(
    "--listen", type=_LINE, default="127.0.0.1:8700", show_default=True, help="HOST:PORT of the backend's interface."
)
@click.option("--certificate", type=_FILE, help="Certificate of that interface; needed beyond loopback.")
@click.option("--key", type=_FILE, help="Its private key.")
@click.option("--client-ca", type=_FILE, help="Let in only clients with a certificate of this authority.")
@click.option("--user", type=_LINE, default="", help="Existing account to run as; default: one that systemd makes up.")
@click.option("--force", is_flag=True, help="Replace a configuration that is there already.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), help="Write below this directory instead of /."
)
@click.option("--start/--no-start", default=True, show_default=True, help="Enable and start the service as well.")
def install(
    host: str,
    target: str,
    names: tuple[str, ...],
    port: int,
    listen: str,
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None,
    user: str,
    force: bool,
    dry_run: bool,
    root: Path | None,
    start: bool,
) -> None:
    """Make this host a VPN node: configuration, token, data directory, systemd unit; then start it.

    For customers, give --host and --target; without them it serves this machine only. Repeating it, also without options, is
    harmless: the token and the data are never replaced, the configuration only with --force, and without that the service
    keeps the files and the account that it has. Exit codes: 0 done, 69 systemd could not start it, 77 not root, or a file
    that the configuration needs is not known, 78 the options or the configuration cannot work.
    """
    wanted = Installation(listen, host, port, target, names, certificate, key, client_ca, user)
    command = program()
    planned = plan_installation(wanted, command=command, force=force, root=root or Path("/"))
    if dry_run:
        _show(planned.items)
        return
    if root is None:
        _check_host(command[0], planned.user)
    done = install_items(planned.items, root or Path("/"))
    for line in done:
        click.echo(f"{line.what:<10}{line.item.path}{_remark(line)}")
    _tell(planned.settings, started=root is None and start and _start(done))


def _show(needed: Sequence[InstallItem]) -> None:
    for item in needed:
        click.echo(f"# {item.path} ({'directory' if item.content is None else 'file'}, mode {item.mode:04o})")
        if item.content is not None:
            click.echo("(made at random, never shown)\n" if item.is_secret else item.content)


def _check_host(executable: str, user: str) -> None:
    if os.geteuid() != 0:
        raise InstallRefused(
            f"installing writes {UNIT} and {CONFIG.parent}: run it as root (sudo). To look first: --dry-run; to write "
            "somewhere else: --root DIR"
        )
    hidden = None if user else unreadable_for_others(Path(executable))
    if hidden is not None:
        raise InstallRefused(
            f"the program is in {executable}, but the service's own user cannot enter {hidden}: install ATLAS where everybody "
            "may read it (/opt/atlas), or name an account that may with --user"
        )


def _remark(line: InstalledItem) -> str:
    return "  (it differs from what would be written: --force replaces it)" if line.what == "kept" else ""


def _start(done: list[InstalledItem]) -> bool:
    systemctl = shutil.which("systemctl")
    if systemctl is None or not Path("/run/systemd/system").is_dir():
        click.echo("systemd does not run here: nothing was started")
        return False
    was_active = subprocess.run([systemctl, "is-active", "--quiet", NAME], check=False).returncode == 0
    for arguments in (["daemon-reload"], ["enable", "--now", NAME]):
        finished = subprocess.run([systemctl, *arguments], check=False, capture_output=True, text=True)
        if finished.returncode:
            raise NotStarted(
                f"systemctl {' '.join(arguments)} failed: {finished.stderr.strip()}; see: journalctl -u {NAME}"
            )
    if was_active and any(line.what == "replaced" for line in done):
        click.echo(f"it runs on as it was; the changes count after: systemctl restart {NAME} (customers reconnect)")
    return True


def _tell(settings: AgentSettings, *, started: bool) -> None:
    if not started:
        click.echo(f"start it:   systemctl daemon-reload && systemctl enable --now {NAME}")
    tls, url = settings.tls, settings.address
    options = f"--url {url} --token-file {TOKEN}"
    if tls is not None:
        options += " --ca-file AUTHORITY.crt"
    if tls is not None and tls.client_ca is not None:
        options += " --certificate CLIENT.crt --key CLIENT.key"
    click.echo(f"look at it: systemctl status {NAME}; atlas node state {options}")
    click.echo(f'backend:    [nodes.NAME] url = "{url}", token_file = a copy of {TOKEN}')
