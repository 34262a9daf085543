"""Whose request it is, and how many of them are too many."""

from __future__ import annotations

import ipaddress

import pytest

from runtime.http.limits import Buckets
from runtime.http.sources import find_source

ONE = ipaddress.ip_address("192.0.2.1")


def buckets_of_ten() -> Buckets:
    """Two requests a second, three at once, ten sources."""
    return Buckets(2.0, 3, sources=10)


def test_a_source_may_send_a_burst_and_then_its_rate() -> None:
    buckets = buckets_of_ten()
    assert [buckets.take(ONE, 0.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take(ONE, 0.0) == pytest.approx(0.5)
    assert buckets.take(ONE, 0.49) > 0
    assert buckets.take(ONE, 0.5) == 0.0
    assert [buckets.take(ONE, 100.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take(ONE, 100.0) > 0


def test_sources_do_not_pay_for_each_other_and_a_network_of_ipv6_is_one_source() -> None:
    buckets = buckets_of_ten()
    for host in range(3):
        assert buckets.take(ipaddress.ip_address(f"2001:db8::{host + 1}"), 0.0) == 0.0
    assert buckets.take(ipaddress.ip_address("2001:db8::ffff"), 0.0) > 0
    assert buckets.take(ipaddress.ip_address("2001:db8:0:1::1"), 0.0) == 0.0
    assert buckets.take(ONE, 0.0) == 0.0


def test_only_so_many_sources_are_remembered() -> None:
    buckets = buckets_of_ten()
    for host in range(1000):
        buckets.take(ipaddress.ip_address(0x0A000000 + host), 0.0)
    assert len(buckets) == 10


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["not an address"], "10.0.0.1"),
        ("10.0.0.1", ["185.71.76.1, "], "10.0.0.1"),
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
    ],
)
def test_a_forwarded_address_counts_only_as_far_as_our_own_proxies_wrote_it(
    peer: str, forwarded: list[str], source: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"type": "http", "client": (peer, 1234), "headers": headers}
    assert str(find_source(scope, [ipaddress.ip_network("10.0.0.0/8")])) == source
