"""Headers: always the four figures, everything ASCII, nothing kept on the way."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.subscription import SubscriptionFacts, headers

END = datetime(2026, 12, 31, 21, 0, tzinfo=UTC)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def decoded(value: str) -> str:
    """The text of a `base64:` value."""
    assert value.startswith("base64:")
    return base64.b64decode(value.removeprefix("base64:"), validate=True).decode()


def test_the_four_figures_are_always_sent() -> None:
    assert headers(SubscriptionFacts())["subscription-userinfo"] == "upload=0; download=0; total=0; expire=0"
    full = headers(SubscriptionFacts(expires_at=END, upload=1, download=2**40, total=3))
    assert full["subscription-userinfo"] == f"upload=1; download={2**40}; total=3; expire={int(END.timestamp())}"


@given(title=texts, announce=texts)
def test_any_title_fits_a_header_and_is_cut_where_programs_cut_it(title: str, announce: str) -> None:
    found = headers(SubscriptionFacts(title=title, announce=announce))
    assert decoded(found["profile-title"]) == title[:25]
    assert decoded(found.get("announce", "base64:")) == announce[:200]
    for value in found.values():
        assert value.isascii() and value.isprintable()


def test_a_browser_is_not_offered_a_file() -> None:
    assert "content-disposition" not in headers(SubscriptionFacts(), attachment=False)
    assert headers(SubscriptionFacts(title="Мой VPN"))["content-disposition"] == (
        "attachment; filename=\"VPN\"; filename*=UTF-8''%D0%9C%D0%BE%D0%B9%20VPN"
    )


def test_what_is_not_known_is_not_sent() -> None:
    assert not {"support-url", "profile-web-page-url", "announce"} & headers(SubscriptionFacts()).keys()
    found = headers(
        SubscriptionFacts(support_url="https://t.me/help", page_url="https://shop.example/s/token", update_hours=6)
    )
    assert found["support-url"] == "https://t.me/help"
    assert found["profile-web-page-url"] == "https://shop.example/s/token"
    assert found["profile-update-interval"] == "6"


def test_nobody_on_the_way_may_keep_the_answer() -> None:
    assert headers(SubscriptionFacts())["cache-control"] == "no-store"


@pytest.mark.parametrize("url", ["https://a.example/\r\nset-cookie: x=1", "https://пример.рф", "https://a b"])
def test_an_address_that_would_break_a_header_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="support_url is not an address"):
        SubscriptionFacts(support_url=url)


def test_the_page_address_is_not_shown_in_a_repr() -> None:
    assert "token" not in repr(SubscriptionFacts(page_url="https://shop.example/s/token"))
