"""A configuration for Mihomo, and for the programs made of it: Clash Verge, FlClash, Clash Meta for Android, Stash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import yaml

from vpn.link import VlessLink
from vpn.subscription.entries import AUTO, GROUP, alpn_of, labels, refuse_unsupported
from vpn.subscription.sing_box import PROBE

Yaml = dict[str, object]

_PRIVATE: Final = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
_PRIVATE_V6: Final = ("::1/128", "fc00::/7", "fe80::/10")


class _Quoting(yaml.SafeDumper):
    """Quotes every text, because YAML 1.2 reads words that YAML 1.1 does not: the short id 34010e92 as a number."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _quoted(dumper: _Quoting, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Quoting.add_representer(str, _quoted)


def clash_config(links: Sequence[VlessLink]) -> bytes:
    """Everything but private addresses through the links (at least one), the fastest unless the customer picks one.

    Raises LinkError for what Mihomo cannot do.
    """
    proxies = clash_proxies(links)
    names = [proxy["name"] for proxy in proxies]
    groups: list[Yaml] = [
        {"name": GROUP, "type": "select", "proxies": [AUTO, *names]},
        {"name": AUTO, "type": "url-test", "proxies": names, "url": PROBE, "interval": 300},
    ]
    rules = [
        *(f"IP-CIDR,{network},DIRECT,no-resolve" for network in _PRIVATE),
        *(f"IP-CIDR6,{network},DIRECT,no-resolve" for network in _PRIVATE_V6),
        f"MATCH,{GROUP}",
    ]
    return _written(proxies, groups, rules)


def clash_proxies(links: Sequence[VlessLink]) -> list[Yaml]:
    """The links as entries of `proxies`. Raises LinkError for what Mihomo cannot do."""
    refuse_unsupported(links, "Mihomo", encryption=True)
    return [_proxy(link, name) for link, name in zip(links, labels(links), strict=True)]


def clash_dead_end(name: str) -> bytes:
    """Nothing passes, private addresses included; the only group has this name."""
    return _written([], [{"name": name, "type": "select", "proxies": ["REJECT"]}], [f"MATCH,{name}"])


def _written(proxies: list[Yaml], groups: list[Yaml], rules: list[str]) -> bytes:
    config: Yaml = {
        "mixed-port": 7890,
        "mode": "rule",
        "log-level": "warning",
        "ipv6": True,
        "proxies": proxies,
        "proxy-groups": groups,
        "rules": rules,
    }
    text: str = yaml.dump(config, Dumper=_Quoting, sort_keys=False, allow_unicode=False, width=10_000)
    return text.encode()


def _proxy(link: VlessLink, name: str) -> Yaml:
    proxy: Yaml = {
        "name": name,
        "type": "vless",
        "server": link.host,
        "port": link.port,
        "uuid": str(link.uuid),
        "network": "tcp",
        "udp": True,
        "packet-encoding": "xudp",
        "tls": link.security != "none",
    }
    if link.encryption != "none":
        proxy["encryption"] = link.encryption
    if link.flow:
        proxy["flow"] = link.flow
    if link.security != "none":
        proxy["servername"] = link.sni or link.host
        if alpn := alpn_of(link):
            proxy["alpn"] = alpn
        if link.fingerprint:
            proxy["client-fingerprint"] = link.fingerprint
    if link.security == "reality":
        # Xray 26.9 and later serve only clients that offer X25519MLKEM768: Mihomo when it is told to, and as Chrome alone.
        proxy["client-fingerprint"] = "chrome"
        proxy["reality-opts"] = {
            "public-key": link.public_key,
            "short-id": link.short_id,
            "support-x25519mlkem768": True,
        }
    return proxy
