"""Configurations for Xray itself: an array, one for each link, as v2rayN, v2rayNG and Happ take it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from vpn.link import VlessLink
from vpn.subscription.entries import labels, refuse_unsupported
from vpn.xray.config import client_config, proxy_config

PORT: Final = 10808  # what these programs use themselves


def xray_configs(links: Sequence[VlessLink]) -> bytes:
    """Each is complete, named by `remarks`, with SOCKS (UDP too) and HTTP on 127.0.0.1:10808. Raises LinkError."""
    refuse_unsupported(links, "Xray", encryption=True)
    named = zip(labels(links), links, strict=True)
    configs = [{"remarks": name, **client_config(link, PORT)} for name, link in named]
    return _written(configs)


def xray_dead_end(name: str) -> bytes:
    """One configuration of this name through which nothing passes."""
    return _written([{"remarks": name, **proxy_config(PORT, {"tag": name, "protocol": "blackhole"})}])


def _written(configs: list[dict[str, object]]) -> bytes:
    return json.dumps(configs, ensure_ascii=False, indent=2).encode()
