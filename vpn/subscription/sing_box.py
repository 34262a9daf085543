"""A configuration for sing-box 1.12 or later, and for the programs made of it: SFA, SFI, SFM, Karing, Hiddify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from vpn.link import VlessLink
from vpn.subscription.entries import AUTO, GROUP, alpn_of, labels, refuse_unsupported

Json = dict[str, object]

PROBE: Final = "https://www.gstatic.com/generate_204"


def sing_box_config(links: Sequence[VlessLink]) -> bytes:
    """The whole device through the links, the fastest unless the customer picks one; private addresses stay local.

    Raises LinkError for what sing-box cannot do.
    """
    refuse_unsupported(links, "sing-box", encryption=False)
    names = labels(links)
    choices: list[Json] = []
    if links:
        choices = [
            {"type": "selector", "tag": GROUP, "outbounds": [AUTO, *names], "default": AUTO},
            {"type": "urltest", "tag": AUTO, "outbounds": names, "url": PROBE, "interval": "5m"},
        ]
    exit_tag = GROUP if links else "direct"
    config: Json = {
        "log": {"level": "warn"},
        "dns": {
            "servers": [
                {"type": "https", "tag": "remote", "server": "1.1.1.1", **({"detour": GROUP} if links else {})},
                {"type": "local", "tag": "local"},
            ],
            "final": "remote",
        },
        "inbounds": [
            {
                "type": "tun",
                "tag": "tun",
                "address": ["172.19.0.1/30", "fdfe:dcba:9876::1/126"],
                "auto_route": True,
                "strict_route": True,
            },
            {"type": "mixed", "tag": "mixed", "listen": "127.0.0.1", "listen_port": 2080},
        ],
        "outbounds": [
            *choices,
            *(_outbound(link, name) for link, name in zip(links, names, strict=True)),
            {"type": "direct", "tag": "direct"},
        ],
        "route": {
            "rules": [
                {"action": "sniff"},
                {"protocol": "dns", "action": "hijack-dns"},
                {"ip_is_private": True, "outbound": "direct"},
            ],
            "final": exit_tag,
            "default_domain_resolver": "local",
            "auto_detect_interface": True,
        },
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
    reality = link.security == "reality"
    if link.fingerprint or reality:
        tls["utls"] = {"enabled": True, "fingerprint": link.fingerprint or "chrome"}
    if reality:
        tls["reality"] = {"enabled": True, "public_key": link.public_key, "short_id": link.short_id}
    return tls
