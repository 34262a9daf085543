"""Clash and Mihomo: the configuration, read as their readers read it, is the links again."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
import yaml
from hypothesis import given, settings

from tests.vpn.subscription.samples import lists
from vpn.errors import LinkError
from vpn.link import VlessLink
from vpn.protocol import FLOW_VISION
from vpn.subscription import Format, render
from vpn.subscription.entries import AUTO, GROUP, labels
from vpn.xray import x25519

ONE = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")
PUBLIC_KEY = x25519.encode(bytes(range(32)))


def link_of(proxy: dict[str, object]) -> VlessLink:
    """What Mihomo understands under a proxy (field names of its documentation, docs/config.yaml)."""
    reality = proxy.get("reality-opts")
    assert proxy["type"] == "vless" and isinstance(proxy["port"], int)
    values = {
        "flow": str(proxy.get("flow", "")),
        "sni": str(proxy.get("servername", "")),
        "fingerprint": str(proxy.get("client-fingerprint", "")),
        "security": "reality" if reality else "tls" if proxy["tls"] else "none",
    }
    if isinstance(reality, dict):
        values |= {"public_key": reality["public-key"], "short_id": reality["short-id"]}
    alpn = proxy.get("alpn")
    extra = (("alpn", ",".join(alpn)),) if isinstance(alpn, list) else ()
    return VlessLink(UUID(str(proxy["uuid"])), str(proxy["server"]), proxy["port"], "", "tcp", extra=extra, **values)


@settings(deadline=None, max_examples=30)  # a busy machine is not a failure
@given(lists)
def test_the_configuration_says_what_the_links_say(links: list[VlessLink]) -> None:
    content = render(links, Format.CLASH).content
    assert content.isascii()
    config = yaml.safe_load(content)
    assert [proxy["name"] for proxy in config["proxies"]] == labels(links)
    for proxy, link in zip(config["proxies"], links, strict=True):
        again = link_of(proxy)
        assert (again.uuid, again.host, again.port, again.flow) == (link.uuid, link.host, link.port, link.flow)
        assert (again.security, again.public_key, again.short_id) == (link.security, link.public_key, link.short_id)
        # before REALITY Mihomo connects as Chrome alone
        fingerprint = "chrome" if link.security == "reality" else link.fingerprint
        assert (again.sni, again.fingerprint, again.extra) == (link.sni, fingerprint, link.extra)


@settings(deadline=None, max_examples=30)  # a busy machine is not a failure
@given(lists)
def test_every_group_names_proxies_that_exist_and_every_rule_a_group(links: list[VlessLink]) -> None:
    config = yaml.safe_load(render(links, Format.CLASH).content)
    known = {"DIRECT", *(proxy["name"] for proxy in config["proxies"]), *(g["name"] for g in config["proxy-groups"])}
    for group in config["proxy-groups"]:
        assert group["proxies"] and set(group["proxies"]) <= known
    for rule in config["rules"]:
        assert rule.split(",")[1 if rule.startswith("MATCH") else 2] in known
    assert config["rules"][-1] == f"MATCH,{GROUP}"
    assert AUTO in known


@pytest.mark.parametrize("short_id", ["34010e92", "0123", "1e10", "00", "12345678"])
def test_a_short_id_that_looks_like_a_number_stays_text_in_yaml_1_2(short_id: str) -> None:
    link = VlessLink(
        ONE, "node.example", 443, security="reality", sni="a.example", public_key=PUBLIC_KEY, short_id=short_id
    )
    assert f'"short-id": "{short_id}"' in render([link], Format.CLASH).content.decode()


def test_every_text_is_quoted() -> None:
    link = VlessLink(ONE, "node.example", 443, name="yes: no #1 'x' \"y\"\\", security="tls", sni="on")
    for line in render([link], Format.CLASH).content.decode().splitlines():
        value = re.sub(r'^[\s-]*("[^"]*":)?\s*', "", line)
        assert value == "" or value[0] == '"' or value in ("true", "false") or value.isdigit(), line


def test_vision_and_reality_are_spelled_as_mihomo_spells_them() -> None:
    link = VlessLink(
        ONE,
        "192.0.2.1",
        443,
        security="reality",
        flow=FLOW_VISION,
        sni="www.example.org",
        public_key=PUBLIC_KEY,
        short_id="a1b2",
    )
    [proxy] = yaml.safe_load(render([link], Format.CLASH).content)["proxies"]
    assert proxy["flow"] == FLOW_VISION and proxy["client-fingerprint"] == "chrome" and proxy["tls"] is True
    assert proxy["reality-opts"] == {"public-key": PUBLIC_KEY, "short-id": "a1b2", "support-x25519mlkem768": True}


@pytest.mark.parametrize("format_", [Format.CLASH, Format.SING_BOX, Format.XRAY])
def test_what_a_configuration_cannot_say_is_refused_and_not_half_said(format_: Format) -> None:
    for link in (
        VlessLink(ONE, "node.example", 443, network="ws"),
        VlessLink(ONE, "node.example", 443, extra=(("headerType", "http"),)),
    ):
        with pytest.raises(LinkError) as caught:
            render([link], format_)
        assert str(ONE) not in str(caught.value)
