"""VLESS links: what is rendered is read back equal, and nothing hostile is read or repeated."""

from __future__ import annotations

import traceback
from uuid import UUID, uuid4

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vpn.agents import key
from vpn.errors import LinkError
from vpn.link import NETWORKS, REALITY_FINGERPRINTS, VlessLink, link_for, parse_link
from vpn.protocol import FLOW_VISION, InboundFacts
from vpn.xray import x25519

UUID_TEXT = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
PUBLIC_KEY = x25519.public_of(x25519.encode(bytes(range(32))))
REALITY = (
    f"vless://{UUID_TEXT}@node.example:443?type=tcp&security=reality&encryption=none&flow={FLOW_VISION}"
    f"&sni=www.example.org&fp=chrome&pbk={PUBLIC_KEY}&sid=a1b2#My%20node"
)

hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-zA-Z]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?(\.[a-zA-Z][a-zA-Z0-9]{0,10}){0,3}", fullmatch=True),
)
texts = st.text(max_size=30)
extras = st.dictionaries(st.text(min_size=1, max_size=8).map("x-".__add__), texts, max_size=5).map(
    lambda found: tuple(found.items())
)
plain_links = st.builds(
    VlessLink,
    uuid=st.uuids(),
    host=hosts,
    port=st.integers(1, 65535),
    name=texts,
    network=st.sampled_from(sorted(NETWORKS)),
    security=st.sampled_from(["none", "tls"]),
    encryption=st.one_of(st.just("none"), st.text(min_size=1, max_size=30)),
    sni=texts,
    fingerprint=texts,
    short_id=st.binary(max_size=8).map(bytes.hex),
    spider_x=texts,
    extra=extras,
)
reality_links = st.builds(
    VlessLink,
    uuid=st.uuids(),
    host=hosts,
    port=st.integers(1, 65535),
    name=texts,
    security=st.just("reality"),
    flow=st.sampled_from(["", FLOW_VISION]),
    sni=st.text(min_size=1, max_size=30),
    fingerprint=st.sampled_from(["", "chrome", "firefox"]),
    public_key=st.binary(min_size=32, max_size=32).map(x25519.encode),
    short_id=st.binary(max_size=8).map(bytes.hex),
    extra=extras,
)


@settings(deadline=None)  # a busy machine is not a failure
@given(st.one_of(plain_links, reality_links))
def test_a_rendered_link_reads_back_equal(link: VlessLink) -> None:
    text = link.render()
    assert parse_link(text) == link
    assert parse_link(text).render() == text
    assert text.isascii() and " " not in text and "\n" not in text


@settings(deadline=None)  # a busy machine is not a failure
@given(st.one_of(plain_links, reality_links), st.data())
def test_a_damaged_link_is_refused_or_read_but_never_repeated(link: VlessLink, data: st.DataObject) -> None:
    text = link.render()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    try:
        parse_link(damaged)
    except LinkError as error:
        told = "".join(traceback.format_exception(error))
        assert str(link.uuid) not in told
        assert str(link.uuid)[9:] not in told
        assert not link.public_key or link.public_key not in told


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text())
def test_any_text_is_either_a_link_or_a_link_error(text: str) -> None:
    try:
        parse_link(text)
    except LinkError:
        pass
    else:
        raise AssertionError("this text cannot be a link: it would need a UUID")


def test_a_reality_link_has_every_field() -> None:
    link = parse_link(REALITY)
    assert link == VlessLink(
        UUID(UUID_TEXT),
        "node.example",
        443,
        name="My node",
        security="reality",
        flow=FLOW_VISION,
        sni="www.example.org",
        fingerprint="chrome",
        public_key=PUBLIC_KEY,
        short_id="a1b2",
    )
    assert link.render() == REALITY


def test_missing_and_empty_parameters_get_the_usual_defaults() -> None:
    bare = parse_link(f"vless://{UUID_TEXT}@192.0.2.1:8443")
    assert bare == VlessLink(UUID(UUID_TEXT), "192.0.2.1", 8443)
    assert (
        parse_link(f"vless://{UUID_TEXT}@192.0.2.1:8443/?type=raw&encryption=&flow=&security=none&path=&host=")
        == attrs.evolve(bare, extra=(("path", ""), ("host", "")))
    )  # fmt: skip


def test_an_ipv6_address_stands_in_brackets() -> None:
    link = VlessLink(UUID(UUID_TEXT), "2001:db8::1", 443)
    assert "@[2001:db8::1]:443?" in link.render()
    assert parse_link(link.render()) == link


def test_a_host_is_the_same_in_any_letter_case() -> None:
    assert VlessLink(UUID(UUID_TEXT), "Node.Example", 443) == VlessLink(UUID(UUID_TEXT), "node.example", 443)


HOSTILE = {
    "another scheme": f"vmess://{UUID_TEXT}@h.example:443",
    "no uuid": "vless://h.example:443",
    "no port": f"vless://{UUID_TEXT}@h.example",
    "no host": f"vless://{UUID_TEXT}@:443",
    "port zero": f"vless://{UUID_TEXT}@h.example:0",
    "port too large": f"vless://{UUID_TEXT}@h.example:65536",
    "port not a number": f"vless://{UUID_TEXT}@h.example:https",
    "uuid without dashes": f"vless://{UUID_TEXT.replace('-', '')}@h.example:443",
    "uuid too short": "vless://1b4e28ba@h.example:443",
    "a password": f"vless://{UUID_TEXT}:secret@h.example:443",
    "two hosts": f"vless://{UUID_TEXT}@h.example:443@evil.example:443",
    "a path": f"vless://{UUID_TEXT}@h.example:443/etc/passwd",
    "host with a space": f"vless://{UUID_TEXT}@h%20.example:443",
    "host with a zone": f"vless://{UUID_TEXT}@[fe80::1%25eth0]:443",
    "host that is no address": f"vless://{UUID_TEXT}@[::zz]:443",
    "brackets around a name": f"vless://{UUID_TEXT}@[v1.example]:443",
    "an open bracket": f"vless://{UUID_TEXT}@[::1:443",
    "host of digits": f"vless://{UUID_TEXT}@1.2.3:443",
    "raw unicode host": f"vless://{UUID_TEXT}@пример.рф:443",
    "a newline inside": f"vless://{UUID_TEXT}@h.example:443?type=tcp\n&security=none",
    "a nul": f"vless://{UUID_TEXT}@h.example:443?type=tcp\0",
    "repeated parameter": f"vless://{UUID_TEXT}@h.example:443?type=tcp&type=ws",
    "repeated unknown parameter": f"vless://{UUID_TEXT}@h.example:443?a=1&a=2",
    "unknown network": f"vless://{UUID_TEXT}@h.example:443?type=carrier-pigeon",
    "unknown security": f"vless://{UUID_TEXT}@h.example:443?security=xtls",
    "unknown flow": f"vless://{UUID_TEXT}@h.example:443?flow=bogus",
    "vision without encryption": f"vless://{UUID_TEXT}@h.example:443?flow={FLOW_VISION}",
    "vision over ws": f"vless://{UUID_TEXT}@h.example:443?flow={FLOW_VISION}&security=tls&type=ws",
    "reality without key": f"vless://{UUID_TEXT}@h.example:443?security=reality&sni=a.example",
    "reality with half a key": REALITY.replace(PUBLIC_KEY, PUBLIC_KEY[:20]),
    "reality without sni": REALITY.replace("&sni=www.example.org", ""),
    "short id of odd length": REALITY.replace("sid=a1b2", "sid=a1b"),
    "short id too long": REALITY.replace("sid=a1b2", "sid=" + "a1" * 9),
    "half an escape": f"vless://{UUID_TEXT}@h.example:443?sni=%ff",
    "name that is not utf-8": f"vless://{UUID_TEXT}@h.example:443#%ff",
    "too long": f"vless://{UUID_TEXT}@h.example:443?a={'x' * 9000}",
    "too many parameters": f"vless://{UUID_TEXT}@h.example:443?" + "&".join(f"p{n}=1" for n in range(65)),
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_links_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(LinkError) as caught:
        parse_link(text)
    told = "".join(traceback.format_exception(caught.value))
    for secret in (UUID_TEXT, UUID_TEXT[9:], "secret", PUBLIC_KEY, "carrier-pigeon"):
        assert secret not in told


def test_a_link_that_could_not_be_written_is_not_made() -> None:
    with pytest.raises(LinkError):
        VlessLink(UUID(UUID_TEXT), "h.example", 443, name="\ud800")
    with pytest.raises(LinkError):
        VlessLink(UUID(UUID_TEXT), "h.example", 443, extra=(("a", "\ud800"),))
    with pytest.raises(LinkError):
        VlessLink(UUID(UUID_TEXT), "h.example", 443, encryption="")
    with pytest.raises(LinkError):
        VlessLink(UUID(UUID_TEXT), "h.example", 443, extra=(("type", "ws"),))


def test_a_links_repr_shows_no_secret() -> None:
    shown = repr(parse_link(REALITY))
    assert UUID_TEXT not in shown and PUBLIC_KEY not in shown and "node.example" in shown


def test_the_link_of_a_key_is_made_from_the_inbound_and_the_keys_own_flow() -> None:
    spec = attrs.evolve(key("customer", uuid=uuid4()), flow=FLOW_VISION)
    facts = InboundFacts(
        "vless", "node.example", 443, "tcp", "reality", "www.example.org", PUBLIC_KEY, "a1b2", "", FLOW_VISION
    )
    link = link_for(spec, facts, "Home")
    assert (link.uuid, link.flow, link.fingerprint, link.name) == (spec.uuid, FLOW_VISION, "chrome", "Home")
    assert parse_link(link.render()) == link
    for named in REALITY_FINGERPRINTS:
        assert link_for(spec, attrs.evolve(facts, fingerprint=named)).fingerprint == named
    # an older agent may say what REALITY serves nobody with
    assert link_for(spec, attrs.evolve(facts, fingerprint="ios")).fingerprint == "chrome"
    plain = link_for(attrs.evolve(spec, flow=""), InboundFacts("vless", "127.0.0.1", 9, "tcp", "none"))
    assert (plain.security, plain.fingerprint, plain.public_key) == ("none", "", "")
