"""Xray's output: when it has started, which customer came from which address, and so who is behind which connection."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from ipaddress import IPv6Address, ip_address

import attrs

_STARTED = re.compile(r"core: Xray (\S+) started")
# Everything after the address is chosen by the customer (the destination), except the very end.
_ACCEPTED = re.compile(r"^\S+ \S+ from (?:tcp:|udp:)?(\S+):(\d{1,5}) accepted .* email: (\S+)$")

# With an address in it that is a customer's, whether it was let in or not.
_ABOUT_A_CUSTOMER = re.compile(r"^\S+ \S+ from \S+ (?:accepted|rejected)\b")


@attrs.frozen
class Source:
    """The far end of a connection to Xray. The address is in its shortest form; IPv4 seen through IPv6 is IPv4."""

    address: str
    port: int


@attrs.frozen
class Access:
    """Xray let a customer's request in. `email` is the customer's key id, in lower case."""

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


def is_about_a_customer(line: str) -> bool:
    """Whether this line says who connected from where, and so is to be kept out of logs and errors."""
    return _ABOUT_A_CUSTOMER.match(line) is not None


def parse_started(line: str) -> str | None:
    """The version, if this line says that Xray has started."""
    found = _STARTED.search(line)
    return None if found is None else found[1]


class Connections:
    """Open connections by customer. An address and port that is seen again belongs to the customer seen last.

    Xray drops access lines when it prints more than 128 at once, so a customer may have connections that are not here:
    traffic counters that go on moving after a cut show it.
    """

    def __init__(self) -> None:
        self._owners: dict[Source, str] = {}
        self._sources: dict[str, set[Source]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def customers(self) -> int:
        """How many customers have at least one open connection."""
        return len(self._sources)

    def add(self, access: Access) -> None:
        """Note the connection that an access line reports."""
        self._drop(access.source)
        self._owners[access.source] = access.email
        self._sources.setdefault(access.email, set()).add(access.source)

    def of(self, email: str) -> frozenset[Source]:
        """The customer's connections; empty if none is known."""
        return frozenset(self._sources.get(email, ()))

    def owner(self, source: Source) -> str | None:
        """The customer whose connection this is, or None if that is not known."""
        return self._owners.get(source)

    def forget(self, sources: AbstractSet[Source]) -> None:
        """Forget these connections: they are closed."""
        for source in sources:
            self._drop(source)

    def all(self) -> frozenset[Source]:
        """Every connection whose owner is known."""
        return frozenset(self._owners)

    def _drop(self, source: Source) -> None:
        email = self._owners.pop(source, None)
        if email is not None:
            mine = self._sources[email]
            mine.discard(source)
            if not mine:
                del self._sources[email]
