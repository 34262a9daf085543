"""Links as a shop hands them out: plain on loopback, TLS, REALITY with and without Vision; any name, any kind of host."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.vpn.test_link import hosts
from vpn.link import VlessLink
from vpn.protocol import FLOW_VISION
from vpn.xray import x25519

idn_hosts = st.sampled_from(["пример.рф", "bücher.example", "例え.テスト"]).map(
    lambda name: name.encode("idna").decode()
)
server_names = st.sampled_from(["www.example.org", "xn--e1afmkfd.xn--p1ai", "a.example"])
links = st.one_of(
    st.builds(
        VlessLink,
        uuid=st.uuids(),
        host=st.one_of(hosts, idn_hosts),
        port=st.integers(1, 65535),
        name=st.text(max_size=80),
    ),
    st.builds(
        VlessLink,
        uuid=st.uuids(),
        host=st.one_of(hosts, idn_hosts),
        port=st.integers(1, 65535),
        name=st.text(max_size=80),
        security=st.just("tls"),
        sni=server_names,
        fingerprint=st.sampled_from(["", "chrome", "firefox"]),
        extra=st.sampled_from([(), (("alpn", "h2,http/1.1"),)]),
    ),
    st.builds(
        VlessLink,
        uuid=st.uuids(),
        host=st.one_of(hosts, idn_hosts),
        port=st.integers(1, 65535),
        name=st.text(max_size=80),
        security=st.just("reality"),
        flow=st.sampled_from(["", FLOW_VISION]),
        sni=server_names,
        fingerprint=st.sampled_from(["chrome", "firefox"]),
        public_key=st.binary(min_size=32, max_size=32).map(x25519.encode),
        short_id=st.binary(max_size=8).map(bytes.hex),
    ),
)
lists = st.lists(links, min_size=1, max_size=5)
"""Of at least one link: without any, each form is a dead end, which has tests of its own."""
