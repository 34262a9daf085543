"""VLESS links: what a customer pastes into a client."""

from __future__ import annotations

import ipaddress
import itertools
import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from uuid import UUID

import attrs

from vpn.errors import LinkError
from vpn.protocol import FLOW_VISION, FLOWS, InboundFacts, KeySpec

NETWORKS: Final = frozenset({"tcp", "ws", "grpc", "httpupgrade", "xhttp", "kcp"})
SECURITIES: Final = frozenset({"none", "tls", "reality"})
MAX_LENGTH: Final = 8192
REALITY_FINGERPRINTS: Final = ("chrome", "firefox", "safari")
"""Browsers that a client may look like before REALITY: those that offer X25519MLKEM768, without which Xray 26.9 and later serve
nobody. Proven with packets; the first is the default, and the one that every program has."""

_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
SHORT_ID: Final = re.compile(r"(?:[0-9a-fA-F]{2}){0,8}")
_PUBLIC_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}")
# parameter name in a link -> field; the order is the order of rendering
_FIELDS: Final = {
    "type": "network",
    "security": "security",
    "encryption": "encryption",
    "flow": "flow",
    "sni": "sni",
    "fp": "fingerprint",
    "pbk": "public_key",
    "sid": "short_id",
    "spx": "spider_x",
}


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise LinkError(f"not a usable VLESS link: {what}")


def _lower(host: str) -> str:
    return host.lower()


@attrs.frozen
class VlessLink:
    """A VLESS link, taken apart. Its repr shows neither the UUID nor the parameters.

    `host` is a name (IDN as xn--…, kept in lower case) or an address without brackets. `extra` keeps parameters that
    have no field here, in their order. Raises LinkError for anything that no client could use: an unknown network or
    security, REALITY without public key or server name, Vision where it cannot run.
    """

    uuid: UUID = attrs.field(repr=False)
    host: str = attrs.field(converter=_lower)
    port: int
    name: str = ""
    network: str = attrs.field(default="tcp", repr=False)
    security: str = attrs.field(default="none", repr=False)
    encryption: str = attrs.field(default="none", repr=False)
    flow: str = attrs.field(default="", repr=False)
    sni: str = attrs.field(default="", repr=False)
    fingerprint: str = attrs.field(default="", repr=False)
    public_key: str = attrs.field(default="", repr=False)
    short_id: str = attrs.field(default="", repr=False)
    spider_x: str = attrs.field(default="", repr=False)
    extra: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)

    def __attrs_post_init__(self) -> None:
        _check(is_host(self.host), "the host is neither a name (IDN as xn--…) nor an address")
        _check(1 <= self.port <= 65535, "the port is not between 1 and 65535")
        _check(self.network in NETWORKS, f"type is not one of {', '.join(sorted(NETWORKS))}")
        _check(self.security in SECURITIES, f"security is not one of {', '.join(sorted(SECURITIES))}")
        _check(self.flow in FLOWS, f'flow is neither empty nor "{FLOW_VISION}"')
        _check(
            self.flow != FLOW_VISION or (self.network == "tcp" and self.security != "none"),
            "flow xtls-rprx-vision needs type=tcp and security=tls or reality",
        )
        _check(SHORT_ID.fullmatch(self.short_id) is not None, "sid is not up to 8 bytes in hexadecimal")
        if self.security == "reality":
            _check(_PUBLIC_KEY.fullmatch(self.public_key) is not None, "pbk is not a REALITY public key")
            _check(bool(self.sni), "REALITY needs sni")
        names = [name for name, _ in self.extra]
        _check(len(set(names)) == len(names) and not set(names) & set(_FIELDS), "a parameter is repeated")
        _check(all(names), "a parameter has no name")
        _check(bool(self.encryption), "encryption is empty")
        _check(_is_text(self), "a part of it is not text")

    def render(self) -> str:
        """The link as text. Parsing it gives an equal link."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        pairs = [(name, getattr(self, attribute)) for name, attribute in _FIELDS.items()]
        query = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in (*pairs, *self.extra)
            if value or name not in _FIELDS
        )
        fragment = f"#{quote(self.name, safe='')}" if self.name else ""
        return f"vless://{self.uuid}@{host}:{self.port}?{query}{fragment}"


def parse_link(text: str) -> VlessLink:
    """Read a VLESS link. Missing parameters get their usual defaults; empty ones count as missing where they have a
    field. Raises LinkError, which never repeats the link."""
    text = text.strip()
    _check(len(text) <= MAX_LENGTH, f"it is longer than {MAX_LENGTH} characters")
    _check(text.isascii() and text.isprintable(), "it has characters that must be percent-encoded")
    try:
        parts = urlsplit(text)
        port = parts.port
        username, host = parts.username, parts.hostname
    except ValueError:
        raise LinkError("not a usable VLESS link: the address cannot be read") from None
    _check(parts.scheme == "vless", "it does not begin with vless://")
    _check("[" not in parts.netloc or (host is not None and ":" in host), "there is no address in the brackets")
    _check(parts.path in ("", "/") and parts.password is None, "it has parts that a VLESS link has not")
    _check(username is not None and host is not None and port is not None, "it needs UUID@HOST:PORT")
    assert username is not None and host is not None and port is not None
    try:
        uuid = UUID(unquote(username))
        pairs = parse_qsl(
            parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict", max_num_fields=64
        )
        name = unquote(parts.fragment, errors="strict")
    except ValueError:
        raise LinkError("not a usable VLESS link: the UUID or the parameters cannot be read") from None
    _check(str(uuid) == unquote(username).lower(), "the UUID is not in its usual form")
    values: dict[str, str] = {}
    extra: list[tuple[str, str]] = []
    for key, value in pairs:
        if key not in _FIELDS:
            extra.append((key, value))
        elif value:
            _check(_FIELDS[key] not in values, "a parameter is repeated")
            values[_FIELDS[key]] = value
    if values.get("network") == "raw":
        values["network"] = "tcp"
    return VlessLink(uuid, host, port, name=name, extra=tuple(extra), **values)


def link_for(spec: KeySpec, inbound: InboundFacts, name: str = "") -> VlessLink:
    """The customer's link for this key on this inbound. The flow is the key's own: it is what the server will demand.

    A fingerprint with which REALITY serves nobody, as an older agent may still report, is replaced by the default.
    """
    fingerprint = inbound.fingerprint
    if inbound.security == "reality" and fingerprint not in REALITY_FINGERPRINTS:
        fingerprint = REALITY_FINGERPRINTS[0]
    return VlessLink(
        spec.uuid,
        inbound.host,
        inbound.port,
        name=name,
        network=inbound.network,
        security=inbound.security,
        flow=spec.flow,
        sni=inbound.sni,
        fingerprint=fingerprint,
        public_key=inbound.public_key,
        short_id=inbound.short_id,
    )


def is_host(host: str) -> bool:
    """Whether a link can name this host: a name (IDN as xn--…) or an address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None and not host.replace(".", "").isdecimal()
    return "%" not in host


def _is_text(link: VlessLink) -> bool:
    """Whether everything can be written as UTF-8: half of a surrogate pair cannot."""
    parts = [link.name, link.encryption, link.sni, link.fingerprint, link.spider_x, *itertools.chain(*link.extra)]
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return False
    return True
