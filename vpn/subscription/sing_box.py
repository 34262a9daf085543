"""A configuration for sing-box 1.12 or later, and for the programs made of it: SFA, SFI, SFM, Karing, Hiddify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from vpn.errors import LinkError
from vpn.link import VlessLink
from vpn.subscription.entries import AUTO, GROUP, alpn_of, labels, refuse_unsupported

Json = dict[str, object]

PROBE: Final = "https://www.gstatic.com/generate_204"
_INBOUNDS: Final[list[Json]] = [
    {
        "type": "tun",
        "tag": "tun",
        "address": ["172.19.0.1/30", "fdfe:dcba:9876::1/126"],
        "auto_route": True,
        "strict_route": True,
    },
    {"type": "mixed", "tag": "mixed", "listen": "127.0.0.1", "listen_port": 2080},
]


def sing_box_config(links: Sequence[VlessLink]) -> bytes:
    """The whole device through the links (at least one), the fastest unless the customer picks one; private addresses stay local.

    Raises LinkError for what sing-box cannot do. REALITY is among it: Xray 26.9 and later serve only clients that offer
    X25519MLKEM768, which sing-box does not.
    """
    refuse_unsupported(links, "sing-box", encryption=False)
    if any(link.security == "reality" for link in links):
        raise LinkError("sing-box does not offer X25519MLKEM768, without which a REALITY node refuses it")
    names = labels(links)
    config: Json = {
        "log": {"level": "warn"},
        "dns": {
            "servers": [
                {"type": "https", "tag": "remote", "server": "1.1.1.1", "detour": GROUP},
                {"type": "local", "tag": "local"},
            ],
            "final": "remote",
        },
        "inbounds": _INBOUNDS,
        "outbounds": [
            {"type": "selector", "tag": GROUP, "outbounds": [AUTO, *names], "default": AUTO},
            {"type": "urltest", "tag": AUTO, "outbounds": names, "url": PROBE, "interval": "5m"},
            *(_outbound(link, name) for link, name in zip(links, names, strict=True)),
            {"type": "direct", "tag": "direct"},
        ],
        "route": {
            "rules": [
                {"action": "sniff"},
                {"protocol": "dns", "action": "hijack-dns"},
                {"ip_is_private": True, "outbound": "direct"},
            ],
            "final": GROUP,
            "default_domain_resolver": "local",
            "auto_detect_interface": True,
        },
    }
    return json.dumps(config, ensure_ascii=False, indent=2).encode()


def sing_box_dead_end(name: str) -> bytes:
    """The whole device into nothing, private addresses included; the only choice has this name."""
    config: Json = {
        "log": {"level": "warn"},
        "inbounds": _INBOUNDS,
        "outbounds": [
            {"type": "selector", "tag": name, "outbounds": ["nowhere"]},
            {"type": "socks", "tag": "nowhere", "server": "127.0.0.1", "server_port": 1},
        ],
        "route": {"rules": [{"action": "reject"}], "final": name, "auto_detect_interface": True},
    }
    return json.dumps(config, ensure_ascii=False, indent=2).encode()


def _outbound(link: VlessLink, name: str) -> Json:
    outbound: Json = {
        "type": "vless",
        "tag": name,
        "server": link.host,
        "server_port": link.port,
        "uuid": str(link.uuid),
        "packet_encoding": "xudp",
    }
    if link.flow:
        outbound["flow"] = link.flow
    if link.security != "none":
        outbound["tls"] = _tls(link)
    return outbound


def _tls(link: VlessLink) -> Json:
    tls: Json = {"enabled": True, "server_name": link.sni or link.host}
    if alpn := alpn_of(link):
        tls["alpn"] = alpn
    if link.fingerprint:
        tls["utls"] = {"enabled": True, "fingerprint": link.fingerprint}
    return tls
