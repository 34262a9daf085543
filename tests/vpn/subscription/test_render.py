"""Which form is answered: the suffix says it, else the program's name, else a browser's wish, else Base64."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings

from tests.vpn.agents import RunningAgent, key
from tests.vpn.origin import PAGE, Origin
from tests.vpn.subscription.samples import lists
from vpn.link import VlessLink, parse_link
from vpn.subscription import Format, UnknownFormat, choose_format, render
from vpn.xray.tunnel import open_tunnel

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PROGRAMS = {
    "v2rayN/7.10": Format.BASE64,
    "v2rayNG/1.10.5": Format.BASE64,
    "Happ/3.4.1": Format.BASE64,
    "Streisand/1.6": Format.BASE64,
    "Shadowrocket/2070 CFNetwork/1490": Format.BASE64,
    "clash-verge/v2.2.3": Format.CLASH,
    "ClashMetaForAndroid/2.11.7.Meta": Format.CLASH,
    "clash.meta/1.19": Format.CLASH,
    "mihomo/1.19.2": Format.CLASH,
    "FlClash/v0.8.80": Format.CLASH,
    "Stash/3.0.3 Clash/1.9.0": Format.CLASH,
    "SFA/1.12.0 (550; sing-box 1.12.0; language ru_RU)": Format.SING_BOX,
    "SFI/1.12.0 (1; sing-box 1.12.0)": Format.SING_BOX,
    "SFM/1.12.0": Format.SING_BOX,
    "sing-box 1.12.0": Format.SING_BOX,
    "Karing/1.1.2 ClashMeta/1.18": Format.SING_BOX,
    "HiddifyNext/2.5.7 (android) like ClashMeta v2ray sing-box": Format.SING_BOX,
}


@pytest.mark.parametrize(("program", "format_"), PROGRAMS.items())
def test_a_program_gets_what_it_reads_whatever_it_accepts(program: str, format_: Format) -> None:
    assert choose_format(program, "*/*") is format_
    assert choose_format(program.upper(), HTML) is format_


def test_a_browser_gets_a_page() -> None:
    assert choose_format(BROWSER, HTML) is Format.HTML


@pytest.mark.parametrize("program", ["", "curl/8.5.0", "okhttp/4.12.0", BROWSER])
def test_whoever_does_not_ask_for_a_page_gets_base64(program: str) -> None:
    assert choose_format(program, "*/*") is Format.BASE64
    assert choose_format(program, "") is Format.BASE64


@pytest.mark.parametrize("format_", list(Format))
def test_the_suffix_decides_before_anything_else(format_: Format) -> None:
    assert choose_format("Happ/3.4.1", HTML, format_.value) is format_
    assert choose_format(BROWSER, HTML, format_.value.upper()) is format_


def test_an_unknown_suffix_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownFormat, match='did you mean "clash"'):
        choose_format("", "", "clsah")
    with pytest.raises(UnknownFormat, match="known: b64, base64, clash"):
        choose_format("", "", "qqqqqq")


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
