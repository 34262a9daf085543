"""Xray's configuration, built from typed settings and checked before Xray sees it.

Xray answers a wrong configuration by ending without a word, and takes some wrong ones (an unknown flow, two users with
the same UUID) only to refuse the customer later. So everything is checked here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from vpn.errors import XrayConfigRefused
from vpn.link import REALITY_FINGERPRINTS, SHORT_ID, VlessLink
from vpn.protocol import FLOW_VISION, FLOWS, route_blind
from vpn.xray import x25519
from vpn.xray.api import ACCOUNTS, BLOCKED, XrayUser

Json = dict[str, object]

DIRECT: Final = "direct"
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")


@attrs.frozen
class Reality:
    """REALITY of an inbound: `target` is the HTTPS server (host:port) whose handshake is shown to strangers, and
    `server_names` are names it answers to."""

    private_key: str = attrs.field(repr=False)
    short_id: str
    target: str
    server_names: tuple[str, ...]


@attrs.frozen
class Inbound:
    """A VLESS inbound over TCP; without `reality` it is unencrypted and meant for loopback."""

    tag: str
    listen: str
    port: int
    reality: Reality | None = None
    protocol: str = "vless"


def _refuse_unless(condition: bool, what: str) -> None:
    if not condition:
        raise XrayConfigRefused(f"the configuration for Xray is wrong and was not tried: {what}")


def check_inbound(inbound: Inbound) -> None:
    """Raise XrayConfigRefused, naming the field, if Xray would not take or not serve this inbound."""
    _refuse_unless(bool(inbound.tag), "an inbound has no tag")
    _refuse_unless(
        inbound.protocol in ACCOUNTS, f"inbound {inbound.tag}: no users can be added over protocol {inbound.protocol!r}"
    )
    _refuse_unless(1 <= inbound.port <= 65535, f"inbound {inbound.tag}: port {inbound.port} is not between 1 and 65535")
    reality = inbound.reality
    if reality is None:
        return
    try:
        x25519.decode(reality.private_key)
    except ValueError as error:
        raise XrayConfigRefused(f"inbound {inbound.tag}: the REALITY private key is unusable: {error}") from None
    _refuse_unless(
        SHORT_ID.fullmatch(reality.short_id) is not None,
        f"inbound {inbound.tag}: short id {reality.short_id!r} is not up to 8 bytes in hexadecimal",
    )
    host, colon, port = reality.target.rpartition(":")
    _refuse_unless(
        bool(host and colon) and port.isdecimal() and 1 <= int(port) <= 65535,
        f"inbound {inbound.tag}: REALITY target {reality.target!r} is not HOST:PORT",
    )
    _refuse_unless(
        bool(reality.server_names) and all(reality.server_names), f"inbound {inbound.tag}: REALITY needs server names"
    )


def check_users(inbound: Inbound, users: Sequence[XrayUser]) -> None:
    """Raise XrayConfigRefused, naming the user, if Xray would take these users and then misbehave."""
    names: set[str] = set()
    keys: dict[bytes, str] = {}
    for user in users:
        _refuse_unless(bool(user.email), "a user has no name; Xray would serve it and never remove it")
        _refuse_unless(user.uuid is not None, f"user {user.email} has no UUID")
        assert user.uuid is not None
        _refuse_unless(user.flow in FLOWS, f"user {user.email}: unknown flow {user.flow!r}")
        _refuse_unless(
            user.flow != FLOW_VISION or inbound.reality is not None,
            f"user {user.email}: flow {FLOW_VISION} needs REALITY",
        )
        _refuse_unless(user.email.lower() not in names, f"user {user.email} is there twice")
        names.add(user.email.lower())
        other = keys.setdefault(route_blind(user.uuid), user.email)
        _refuse_unless(other == user.email, f"users {other} and {user.email} have the same UUID")


def server_config(inbound: Inbound, users: Sequence[XrayUser], api_socket: str, *, allow: Sequence[str] = ()) -> Json:
    """The configuration of a node: one inbound, its users, the interface on a Unix socket, counters per user.

    `allow` lists private networks that customers may reach through this node; none by default, as Xray has it. Raises
    XrayConfigRefused.
    """
    check_inbound(inbound)
    check_users(inbound, users)
    rules = [{"action": "allow", "ip": list(allow)}] if allow else []
    return {
        # access lines say which customer came from which address: cutting depends on them
        "log": {"loglevel": "warning", "access": ""},
        "api": {"tag": "api", "listen": api_socket, "services": ["HandlerService", "StatsService", "RoutingService"]},
        "stats": {},
        "policy": {"levels": {"0": {"statsUserUplink": True, "statsUserDownlink": True, "statsUserOnline": True}}},
        "inbounds": [
            {
                "tag": inbound.tag,
                "listen": inbound.listen,
                "port": inbound.port,
                "protocol": inbound.protocol,
                "settings": {
                    "decryption": "none",
                    "clients": [{"id": str(user.uuid), "email": user.email, "flow": user.flow} for user in users],
                },
                "streamSettings": _server_stream(inbound.reality),
            }
        ],
        "outbounds": [
            {"tag": DIRECT, "protocol": "freedom", "settings": {"finalRules": rules} if rules else {}},
            {"tag": BLOCKED, "protocol": "blackhole"},
        ],
        "routing": {"rules": []},
    }


def _server_stream(reality: Reality | None) -> Json:
    if reality is None:
        return {"network": "tcp", "security": "none"}
    return {
        "network": "tcp",
        "security": "reality",
        "realitySettings": {
            "target": reality.target,
            "serverNames": list(reality.server_names),
            "privateKey": reality.private_key,
            "shortIds": [reality.short_id],
            # Unset, Xray 26.7 refuses clients that do not claim to be a recent Xray: Mihomo, and all others.
            "minClientVer": "0.0.0",
        },
    }


def client_config(link: VlessLink, listen_port: int, *, mux: int = 0) -> Json:
    """The configuration of a client for one link: SOCKS (UDP too) and HTTP proxy on 127.0.0.1:`listen_port`.

    `mux` > 0 carries that many streams in one connection. Raises XrayConfigRefused for links this client cannot use.
    """
    _refuse_unless(link.network == "tcp", f"this client speaks type=tcp only, the link says {link.network}")
    user: Json = {"id": str(link.uuid), "encryption": link.encryption}
    if link.flow:
        user["flow"] = link.flow
    outbound: Json = {
        "protocol": "vless",
        "settings": {"vnext": [{"address": link.host, "port": link.port, "users": [user]}]},
        "streamSettings": _client_stream(link),
    }
    if mux:
        outbound["mux"] = {"enabled": True, "concurrency": mux}
    return proxy_config(listen_port, outbound)


def proxy_config(listen_port: int, outbound: Json) -> Json:
    """The configuration of a SOCKS (UDP too) and HTTP proxy on 127.0.0.1:`listen_port`, with one way out."""
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "inbounds": [
            {
                "listen": "127.0.0.1",
                "port": listen_port,
                "protocol": "mixed",
                "settings": {"auth": "noauth", "udp": True},
            }
        ],
        "outbounds": [outbound],
    }


def _client_stream(link: VlessLink) -> Json:
    stream: Json = {"network": "tcp", "security": link.security}
    fingerprint = link.fingerprint or REALITY_FINGERPRINTS[0]
    if link.security == "reality":
        stream["realitySettings"] = {
            "serverName": link.sni,
            "fingerprint": fingerprint,
            "publicKey": link.public_key,
            "shortId": link.short_id,
            "spiderX": link.spider_x,
        }
    elif link.security == "tls":
        stream["tlsSettings"] = {"serverName": link.sni or link.host, "fingerprint": fingerprint}
    return stream
