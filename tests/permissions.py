"""Permissions that hold for root as well, and another user's."""

from __future__ import annotations

import os

NOBODY = 65534

OBEYING = () if os.getuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
"""Put before a command: it may not read, write or change what its user may not, also as root."""

AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    # The interpreter may lie in a directory that only root enters. Nothing of this lets it write.
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
"""Put before a command: another user runs it. Only root can."""
