"""What a host has from an earlier installation, and a repetition goes on from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import attrs

from vpn.agent.settings import AgentSettings, load_settings
from vpn.agent.unit import CREDENTIALS
from vpn.errors import AgentMisconfigured, InstallRefused

_CREDENTIAL = re.compile(r"^LoadCredential=([^:\s]+):(.+)$", re.MULTILINE)
_USER = re.compile(r"^User=(\S+)$", re.MULTILINE)


@attrs.frozen
class Kept:
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


def read_kept(config: Path, unit: Path) -> Kept:
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
    return Kept(settings, found, user[1] if user else "")


def _needed(settings: AgentSettings) -> list[str]:
    tls = settings.tls
    files = [settings.token_file, *([tls.certificate, tls.key, tls.client_ca] if tls else [])]
    return [path.name for path in files if path is not None and PurePosixPath(path).parent == CREDENTIALS]
