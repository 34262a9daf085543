"""What an operator can say about the embedded database and node, and the error of what cannot be prepared or started."""

from __future__ import annotations

from pathlib import Path

import attrs

from runtime import StartRefused
from runtime.config import settings


class ClusterError(StartRefused):
    """The embedded PostgreSQL cannot be prepared or started; the text says why and which setting changes it."""


@settings("embedded")
@attrs.frozen
class EmbeddedSettings:
    """The parts that run on this machine when no others are named."""

    data_dir: Path = Path(".atlas")
    """Where the embedded database and node keep their data, across restarts; relative to the configuration file. As root, a
    directory that the service user cannot reach is replaced by one under /var/lib/atlas."""
    binaries: Path | None = None
    "PostgreSQL's bin directory. Default: the one installed with `atlas[embedded]`, else the newest under /usr/lib/postgresql."
    service_user: str = "atlas"
    "As root, who runs PostgreSQL, which refuses root; created as a system account if it does not exist."
