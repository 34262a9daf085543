"""What a stranger may cost a listener, as settings; and the token buckets that hold one source to its rate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_network
from typing import Final
from urllib.parse import unquote

import attrs
from attrs.validators import ge, gt, le
from starlette.types import Scope

from runtime.http.sources import IpAddress, Networks, site_of
from runtime.metrics import counter

_AMID: Final = 3
_SOURCES_AT_MOST: Final = 10_000

REQUESTS = counter("atlas_http_requests_total", "Requests to a listener by status.", labels=("listener", "status"))
LIMITED = counter(
    "atlas_http_limited_total",
    "Connections closed and requests refused before they were read, by limit.",
    labels=("listener", "limit"),
)


@attrs.frozen
class ConnectionLimits:
    """What connections and requests may cost any listener. A settings class inherits the fields and may have other defaults."""

    trusted_proxies: tuple[str, ...] = ()
    "Networks of our own proxies: what they say in X-Forwarded-For is believed, and they may have many connections."
    max_header: int = attrs.field(default=16 * 1024, validator=[ge(1024), le(256 * 1024)])
    "Bytes of a request's head; a larger one gets 431."
    head_seconds: float = attrs.field(default=5.0, validator=gt(0))
    """A connection without a whole request head is closed after so long; one that sends nothing in the middle of a body, or takes
    nothing of its answer, after three times as long."""
    request_seconds: float = attrs.field(default=20.0, validator=gt(0))
    "Until a request is answered, or its answer has begun to stream; a longer one gets 408, or 503."
    max_connections: int = attrs.field(default=512, validator=ge(1))
    "Connections at a time; one more is closed at once."
    max_connections_per_source: int = attrs.field(default=128, validator=ge(1))
    "Connections at a time of one source that is none of `trusted_proxies`; one more is closed at once."
    max_requests: int = attrs.field(default=64, validator=ge(1))
    "Requests in progress; the next one gets 503."

    @property
    def patience(self) -> float:
        """Seconds that a client may stand still in the middle of a body or of an answer."""
        return self.head_seconds * _AMID

    def check_configuration(self) -> Iterable[str]:
        """Refuse proxies that are no networks."""
        for text in self.trusted_proxies:
            try:
                ip_network(text)
            except ValueError as error:
                yield f"trusted_proxies: {error}; write a network such as 10.0.0.0/8, or an address"

    def networks(self) -> Networks:
        """`trusted_proxies`, read. Raises ValueError for what is no network."""
        return [ip_network(text) for text in self.trusted_proxies]


@attrs.frozen
class RequestLimits(ConnectionLimits):
    """The limits of a listener that strangers may talk to."""

    max_body: int = attrs.field(default=256 * 1024, validator=[ge(1024), le(16 * 1024 * 1024)])
    "Bytes of a request's body; a larger one gets 413."
    rate: float = attrs.field(default=50.0, validator=gt(0))
    "Requests a second that one source (an IPv4 address, or a /64 of IPv6) may send for ever; beyond that it gets 429."
    burst: int = attrs.field(default=200, validator=ge(1))
    "Requests that one source may send at once."


def head_size(scope: Scope) -> int:
    """Bytes of names and values in a request's head."""
    return len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in scope["headers"])


def has_controls(scope: Scope) -> bool:
    """Whether the path or the query holds, written as %xx, a character that no name has and no database takes, such as NUL."""
    query = unquote(scope["query_string"].decode("latin-1"))
    return not (scope["path"].isprintable() and query.isprintable())


class Buckets:
    """A token bucket for each source. At most `sources` are remembered; then the one not seen for longest is forgotten."""

    def __init__(self, rate: float, burst: int, *, sources: int = _SOURCES_AT_MOST) -> None:
        self._rate = rate
        self._burst = burst
        self._sources = sources
        self._buckets: OrderedDict[IpAddress | IPv6Network, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: IpAddress, now: float) -> float:
        """Seconds until this source may send a request; 0.0: now, and it is counted."""
        key = site_of(source)
        tokens, then = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + max(now - then, 0.0) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return wait
