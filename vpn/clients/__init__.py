"""VPN clients that ATLAS runs itself: what the canary sends its packets with.

Promise: two implementations that share no code behind one `Tunnel`; a client is a child process that ends with its tunnel, and
never a part of this one; no key is written to disk or shown in a command line. Entry points: `installed_clients` and
`open_client_tunnel`. For the canary.
"""

from __future__ import annotations

import enum
from contextlib import AbstractAsyncContextManager

from vpn.clients.mihomo import mihomo_program, open_mihomo_tunnel
from vpn.link import VlessLink
from vpn.xray.tunnel import Tunnel, open_tunnel

__all__ = ["Client", "installed_clients", "open_client_tunnel"]


class Client(enum.Enum):
    """An implementation of a VPN client."""

    XRAY = "xray"
    MIHOMO = "mihomo"


def installed_clients() -> tuple[Client, ...]:
    """The implementations that this machine has, Xray first; it has a second one with `atlas[clients]`."""
    return (Client.XRAY,) if mihomo_program() is None else (Client.XRAY, Client.MIHOMO)


def open_client_tunnel(client: Client, link: VlessLink, *, within: float = 15.0) -> AbstractAsyncContextManager[Tunnel]:
    """A tunnel of this implementation for as long as the block lasts; `within` is how long its start may take, in seconds.

    Opening does not talk to the node. Raises, as the block is entered, XrayError or TunnelError for a client that does not start,
    and LinkError or XrayConfigRefused for a link that it cannot use.
    """
    opened = {Client.XRAY: open_tunnel, Client.MIHOMO: open_mihomo_tunnel}[client]
    return opened(link, within=within)
