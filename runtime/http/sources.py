"""Who sent a request, as far as that can be believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from starlette.types import Scope

IpAddress = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

SOURCE: Final = "atlas.source"
"Where `LimitedApp` notes the source in a request's scope."
_UNKNOWN: Final = ipaddress.ip_address("0.0.0.0")  # noqa: S104 - the address of no host, not one to listen on
_SITE_BITS: Final = 64
_PROXIES_AT_MOST: Final = 8


def read_address(text: str) -> IpAddress | None:
    """The address that the text is, an IPv4 address inside IPv6 as itself; None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def site_of(source: IpAddress) -> IpAddress | IPv6Network:
    """What counts as one source: an IPv4 address, or a /64 of IPv6, of which one customer has all."""
    if isinstance(source, IPv4Address):
        return source
    return IPv6Network((source, _SITE_BITS), strict=False)


def find_source(scope: Scope, trusted: Networks) -> IpAddress:
    """The peer; or, if that is a proxy of ours, the last address in X-Forwarded-For that is none. At most eight are read."""
    client = scope.get("client")
    source = read_address(client[0]) if client else None
    if source is None:
        return _UNKNOWN
    hops = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    for hop in reversed(",".join(hops).split(",")[-_PROXIES_AT_MOST:]):
        if not any(source in network for network in trusted):
            break
        before = read_address(hop.strip())
        if before is None:
            break
        source = before
    return source


def source_of(scope: Scope) -> IpAddress:
    """Who sent the request that `LimitedApp` passed on."""
    source = scope.get(SOURCE, _UNKNOWN)
    assert isinstance(source, IPv4Address | IPv6Address)
    return source
