"""`[nodes.<key>]`: the VPN nodes that ATLAS drives."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

import attrs

from runtime.config import Secret, settings
from vpn.errors import NodeRefused
from vpn.node.breaker import Breaker
from vpn.node.client import AgentClient


@settings("nodes")
@attrs.frozen
class NodesSettings:
    """What holds of all nodes together: keys of `[nodes]` beside its entries. `required`: how many of them have to be well for
    the service to be ready: "any" of them (one), "all", or so many."""

    required: Literal["any", "all"] | int = attrs.field(default="any")

    @required.validator
    def _is_a_number_of_nodes(self, _attribute: object, value: str | int) -> None:
        if isinstance(value, int) and value < 0:
            raise ValueError(f"expected a number of nodes, from 0 on, got {value}")


@settings("nodes", keyed=True, common=NodesSettings)
@attrs.frozen
class NodeSettings:
    """One node. `url` is its agent's address (empty: an embedded node that ATLAS starts itself), `token` its bearer token.

    `ca_file` verifies the agent's certificate instead of the system's authorities; `certificate_file` and `key_file`
    are our own, if it asks for one. `within` is the limit of one call in seconds.
    """

    url: str = attrs.field(default="")
    token: Secret = attrs.field(factory=Secret)
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    within: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))

    @url.validator
    def _is_complete(self, _attribute: object, value: str) -> None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"expected the address of an agent, such as https://node.example:8700, got {value!r}")
        if value and not self.token:
            raise ValueError("the agent lets nobody in without its token; set token_file as well")

    def client(self, name: str, *, breaker: Breaker | None = None, concurrency: int = 16) -> AgentClient:
        """A client for this node, with at most `concurrency` calls at once. Raises NodeRefused if its certificates cannot be
        read."""
        return AgentClient(
            name,
            self.url,
            self.token,
            within=self.within,
            breaker=breaker,
            verify=self.context(name),
            concurrency=concurrency,
        )

    def context(self, name: str) -> ssl.SSLContext | bool:
        """How the agent's certificate is verified, and with which of ours. Raises NodeRefused."""
        if not (self.ca_file or self.certificate_file):
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.certificate_file:
                context.load_cert_chain(Path(self.certificate_file), Path(self.key_file) if self.key_file else None)
        except (OSError, ssl.SSLError) as error:
            raise NodeRefused(name, f"its certificates cannot be used: {error}", "certificates") from error
        return context
