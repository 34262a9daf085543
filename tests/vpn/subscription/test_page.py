"""The page: shows the code and every link, runs and loads nothing, and lets no name become markup."""

from __future__ import annotations

import html
import re
from uuid import UUID

from hypothesis import given, settings

from tests.vpn.subscription.samples import lists
from vpn.link import VlessLink
from vpn.subscription import Format, render

ADDRESS = "https://shop.example/s/token?a=1&b=2"


@settings(deadline=None, max_examples=20)  # a busy machine is not a failure
@given(lists)
def test_every_link_stands_on_the_page(links: list[VlessLink]) -> None:
    body = render(links, Format.HTML, title="ATLAS", url=ADDRESS)
    shown = [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", body.content.decode())]
    assert shown == [ADDRESS, *(link.render() for link in links)]
    assert body.content_type == "text/html; charset=utf-8"


def test_the_page_runs_nothing_and_loads_nothing() -> None:
    link = VlessLink(UUID(int=1), "node.example", 443, name="<script>alert(1)</script>")
    text = render([link], Format.HTML, title='"><img src=x>', url=ADDRESS).content.decode()
    assert "<script" not in text and "<img" not in text
    assert not re.search(r'(src|href)="', text)
    assert 'content="no-referrer"' in text


def test_the_page_speaks_the_customers_language() -> None:
    assert "No server works just now" in render([], Format.HTML, language="en").content.decode()
    assert "No server works just now" in render([], Format.HTML, language="de").content.decode()
    assert "Сейчас нет" in render([], Format.HTML, language="ru-RU").content.decode()
