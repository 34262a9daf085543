"""Where a node's agent is reached."""

from __future__ import annotations

import attrs

from runtime.config.secret import Secret
from runtime.message import Request


@attrs.frozen
class Endpoint:
    """An agent's address and the token that it wants to see."""

    url: str
    token: Secret


@attrs.frozen
class Locate(Request[Endpoint]):
    """Where does the embedded agent listen?"""
