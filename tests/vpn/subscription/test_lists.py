"""Lists of links: what is written is read back, and the first link read opens a tunnel."""

from __future__ import annotations

import base64

from hypothesis import given, settings

from tests.vpn.agents import RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.subscription.samples import lists
from vpn.link import VlessLink, parse_link
from vpn.subscription import Format, render
from vpn.tunnel import open_tunnel


@settings(deadline=None)  # a busy machine is not a failure
@given(lists)
def test_every_link_of_a_list_reads_back_equal(links: list[VlessLink]) -> None:
    plain = render(links, Format.PLAIN).content.decode("ascii")
    assert [parse_link(line) for line in plain.splitlines()] == links
    encoded = render(links, Format.BASE64).content
    assert encoded.isascii() and b"\n" not in encoded
    decoded = base64.b64decode(encoded, validate=True).decode("ascii")
    assert [parse_link(line) for line in decoded.split("\n") if line] == links


async def test_a_link_out_of_a_base64_list_opens_a_tunnel(agent: RunningAgent, origin: Origin) -> None:
    spec = key("customer")
    async with agent.client() as client:
        await client.put(spec)
    body = render([agent.link(spec)], Format.BASE64).content
    link = parse_link(base64.b64decode(body).decode().split("\n")[0])
    async with open_tunnel(link) as tunnel:
        assert (await tunnel.fetch(origin.url)).body == PAGE
