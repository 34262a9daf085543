"""What can be wrong with an embedded PostgreSQL."""

from __future__ import annotations

from runtime.errors import StartRefused


class ClusterError(StartRefused):
    """The embedded PostgreSQL cannot be prepared or started; the text says why and which setting changes it."""
