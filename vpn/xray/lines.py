"""Reading Xray's output: which customer came from which address, and when it has started."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

import attrs

_STARTED = re.compile(r"core: Xray (\S+) started")
# Everything after the address is chosen by the customer (the destination), except the very end.
_ACCEPTED = re.compile(r"^\S+ \S+ from (?:tcp:|udp:)?(\S+):(\d{1,5}) accepted .* email: (\S+)$")


@attrs.frozen
class Source:
    """The far end of a connection to Xray. The address is in its shortest form; IPv4 seen through IPv6 is IPv4."""

    address: str
    port: int


@attrs.frozen
class Access:
    """A customer's request was let in."""

    email: str
    source: Source


def source_of(address: str, port: int) -> Source:
    """A source in canonical form. Raises ValueError if the address is none."""
    parsed = ip_address(address.strip("[]").partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return Source(str(parsed), port)


def parse_access(line: str) -> Access | None:
    """The access that an output line of Xray reports, or None if it reports something else."""
    found = _ACCEPTED.match(line)
    if found is None:
        return None
    address, port, email = found.groups()
    try:
        return Access(email.lower(), source_of(address, int(port)))
    except ValueError:
        return None


def parse_started(line: str) -> str | None:
    """The version, if this line says that Xray has started."""
    found = _STARTED.search(line)
    return None if found is None else found[1]
