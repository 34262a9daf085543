"""Making a host a VPN node: configuration, token, data directory and systemd unit, written so that repeating it is
harmless.

A repetition goes on from the existing installation.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import attrs

from vpn.agent.config.settings import AgentSettings, InboundSettings, TlsSettings, check_settings, load_settings
from vpn.agent.install.systemd_unit import CREDENTIALS, NAME, unit_text
from vpn.errors import AgentMisconfigured, InstallRefused

_CREDENTIAL = re.compile(r"^LoadCredential=([^:\s]+):(.+)$", re.MULTILINE)
_USER = re.compile(r"^User=(\S+)$", re.MULTILINE)


@attrs.frozen
class ExistingInstallation:
    """The configuration that is there (None: none), the unit's credential files by name, and the account that it names."""

    settings: AgentSettings | None = None
    credentials: Mapping[str, str] = attrs.field(factory=dict)
    user: str = ""

    def credentials_for(self, settings: AgentSettings, given: Mapping[str, str]) -> dict[str, str]:
        """The files that these settings read as credentials: those given now, otherwise those the unit had. Raises
        InstallRefused, naming the options, if one would be missing: the service could not start."""
        known = {**self.credentials, **given}
        needed = _needed(settings)
        missing = [name for name in needed if name not in known]
        if missing:
            options = {"tls.crt": "--certificate", "tls.key": "--key", "clients.crt": "--client-ca"}
            raise InstallRefused(
                f"the configuration that is there reads {', '.join(missing)} from systemd, and neither an option nor the "
                f"present unit says which files those are: give {' '.join(options.get(name, name) for name in missing)}, or "
                "replace the configuration with --force"
            )
        return {name: known[name] for name in needed}


def read_existing_installation(config: Path, unit: Path) -> ExistingInstallation:
    """What these two files say, as far as they are there. Raises AgentMisconfigured for a configuration that cannot work."""
    try:
        settings = load_settings(config) if config.exists() else None
        text = unit.read_text() if unit.exists() else ""
    except AgentMisconfigured as error:
        raise AgentMisconfigured(f"{error}; correct it, or replace it with --force") from error
    except OSError as error:
        raise InstallRefused(f"cannot read {error.filename}: {error.strerror}") from error
    found = {name: path.replace("%%", "%") for name, path in _CREDENTIAL.findall(text)}
    user = _USER.search(text)
    return ExistingInstallation(settings, found, user[1] if user else "")


def _needed(settings: AgentSettings) -> list[str]:
    tls = settings.tls
    files = [settings.token_file, *([tls.certificate, tls.key, tls.client_ca] if tls else [])]
    return [path.name for path in files if path is not None and PurePosixPath(path).parent == CREDENTIALS]


CONFIG: Final = Path("/etc/atlas/node.toml")
TOKEN: Final = Path("/etc/atlas/node.token")
DATA: Final = Path(f"/var/lib/{NAME}")
UNIT: Final = Path(f"/etc/systemd/system/{NAME}.service")


@attrs.frozen
class Installation:
    """What the node is to be. Without `target` it is a node for this machine only. `certificate`, `key` and `client_ca` are
    for the agent's own interface; without them it listens on loopback. `user` is an existing account that it runs as; by
    default systemd makes one up."""

    listen: str = "127.0.0.1:8700"
    host: str = ""
    port: int = 443
    target: str = ""
    server_names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    user: str = ""

    @property
    def settings(self) -> AgentSettings:
        """The agent's configuration. Raises AgentMisconfigured if it cannot work."""
        if (self.certificate is None) != (self.key is None):
            raise AgentMisconfigured("--certificate and --key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise AgentMisconfigured("--client-ca needs --certificate and --key")
        inbound = InboundSettings(port=self.port)
        if self.target:
            inbound = InboundSettings("0.0.0.0", self.port, self.host, "reality", self.target, self.server_names)  # noqa: S104  # customers come from everywhere
        tls = None
        if self.certificate is not None:
            tls = TlsSettings(
                Path(CREDENTIALS / "tls.crt"),
                Path(CREDENTIALS / "tls.key"),
                None if self.client_ca is None else Path(CREDENTIALS / "clients.crt"),
            )
        settings = AgentSettings(DATA, Path(CREDENTIALS / "token"), self.listen, inbound, tls)
        check_settings(settings)
        return settings

    @property
    def credentials(self) -> dict[str, str]:
        """Files that only root may read, by the name under which the service gets them."""
        given = {"tls.crt": self.certificate, "tls.key": self.key, "clients.crt": self.client_ca}
        return {"token": str(TOKEN)} | {name: str(path.absolute()) for name, path in given.items() if path is not None}


@attrs.frozen
class InstallItem:
    """A file, or a directory (`content` None). `is_yours`: once there, it is left as it is."""

    path: Path
    mode: int
    content: str | None = attrs.field(repr=False)
    is_yours: bool = False
    is_secret: bool = False


@attrs.frozen
class InstalledItem:
    """What was done about an item: `created`, `replaced`, `unchanged` or `kept`."""

    item: InstallItem
    what: str


def program() -> list[str]:
    """The command that runs this installation's agent: the `atlas` script beside the interpreter, else `python -m
    vpn.agent`.
    """
    script = Path(sys.executable).parent / "atlas"
    return [str(script), "node", "run"] if script.exists() else [sys.executable, "-P", "-m", "vpn.agent"]


@attrs.frozen
class InstallPlan:
    """What a host will have: the items, the settings that the agent will run with, and the account (empty: made up)."""

    items: Sequence[InstallItem]
    settings: AgentSettings
    user: str


def plan_installation(wanted: Installation, *, command: Sequence[str], force: bool, root: Path) -> InstallPlan:
    """Everything that the node needs. Without `force`, the configuration below `root` stays, and the unit goes on to give it
    the files and the account that it has, unless others are wanted. Raises AgentMisconfigured or InstallRefused."""
    asked = wanted.settings
    existing = (
        ExistingInstallation()
        if force
        else read_existing_installation(*(root / path.relative_to("/") for path in (CONFIG, UNIT)))
    )
    settings, user = existing.settings or asked, wanted.user or existing.user
    credentials = existing.credentials_for(settings, wanted.credentials)
    unit = unit_text([*command, "--config", str(CONFIG)], credentials, user)
    return InstallPlan(_items(config_text(asked), unit, force=force), settings, user)


def _items(config: str, unit: str, *, force: bool) -> list[InstallItem]:
    token = secrets.token_urlsafe(32)
    return [
        InstallItem(CONFIG.parent, 0o755, None),
        InstallItem(CONFIG, 0o644, config, is_yours=not force),
        InstallItem(TOKEN, 0o600, token + "\n", is_yours=True, is_secret=True),
        InstallItem(DATA, 0o700, None),
        InstallItem(UNIT.parent, 0o755, None),
        InstallItem(UNIT, 0o644, unit),
    ]


def config_text(settings: AgentSettings) -> str:
    """The configuration file in TOML, with comments. Reading it back gives these settings."""
    inbound, tls = settings.inbound, settings.tls
    lines = [
        "# Written by `atlas node install`, which then leaves it alone (--force replaces it). See docs/reference/node.md.",
        _line("data_dir", str(settings.data_dir)),
        "# systemd shows the service what is in /etc/atlas/node.token, which root alone may read.",
        _line("token_file", str(settings.token_file)),
        _line("listen", settings.listen),
        "",
        "[inbound]",
        _line("listen", inbound.listen),
        _line("port", inbound.port),
        _line("security", inbound.security),
    ]
    if inbound.security == "reality":
        lines += [_line("host", inbound.host), _line("target", inbound.target)]
        lines += [_line("server_names", list(settings.server_names))]
    if tls is not None:
        lines += ["", "[tls]", _line("certificate", str(tls.certificate)), _line("key", str(tls.key))]
        lines += [] if tls.client_ca is None else [_line("client_ca", str(tls.client_ca))]
    return "\n".join(lines) + "\n"


def _line(name: str, value: object) -> str:
    return f"{name} = {json.dumps(value)}"  # for text, numbers and lists of text, JSON is TOML


def install(wanted: Sequence[InstallItem], root: Path) -> list[InstalledItem]:
    """Write what is missing or different below `root`. Raises InstallRefused naming the file that cannot be written."""
    return [InstalledItem(item, _install(item, root / item.path.relative_to("/"))) for item in wanted]


def _install(item: InstallItem, path: Path) -> str:
    try:
        if item.content is None:
            is_there = path.is_dir()
            if not is_there:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=item.mode)
            return "unchanged" if is_there else "created"
        before = path.read_text() if path.exists() else None
        if before == item.content or (before is not None and item.is_yours):
            if stat.S_IMODE(path.stat().st_mode) != item.mode and item.is_secret:
                path.chmod(item.mode)
            return "unchanged" if before == item.content or item.is_secret else "kept"
        _write(path, item.content, item.mode)
    except OSError as error:
        raise InstallRefused(f"cannot write {path}: {error.strerror}; nothing after it was written") from error
    return "created" if before is None else "replaced"


def _write(path: Path, content: str, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def unreadable_for_others(path: Path) -> Path | None:
    """The directory on the way to this file that other users cannot enter, or the file if they cannot read it."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None if path.stat().st_mode & stat.S_IROTH else path
