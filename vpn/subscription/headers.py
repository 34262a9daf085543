"""What a subscription's answer says beside its body: traffic, end, title, when to ask again."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Final
from urllib.parse import quote

import attrs

MAX_TITLE: Final = 25  # Happ cuts longer ones
MAX_ANNOUNCE: Final = 200


def _header_url(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value and not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError(f"{attribute.name} is not an address that a header can carry")


@attrs.frozen
class SubscriptionFacts:
    """What there is to say about a subscription. Bytes are since the beginning; 0 in `total` means without limit."""

    title: str = "ATLAS"
    expires_at: datetime | None = None
    """When access ends; None: never."""
    upload: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    download: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    total: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    update_hours: int = attrs.field(default=12, validator=attrs.validators.ge(1))
    """How often programs ask again."""
    support_url: str = attrs.field(default="", validator=_header_url)
    page_url: str = attrs.field(default="", validator=_header_url, repr=False)
    """The subscription's own page: a credential."""
    announce: str = ""
    """A line shown in the program; at most 200 characters of it."""


def headers(facts: SubscriptionFacts, *, attachment: bool = True) -> dict[str, str]:
    """The headers, by lower-case name, all of them ASCII. `attachment` False: for a browser that shows the answer itself.

    `subscription-userinfo` always has its four fields, `expire` being seconds since 1970 and 0 for never, because
    programs fail on a missing one. No proxy or cache may keep the answer: it is a credential.
    """
    expire = 0 if facts.expires_at is None else int(facts.expires_at.timestamp())
    found = {
        "subscription-userinfo": (
            f"upload={facts.upload}; download={facts.download}; total={facts.total}; expire={expire}"
        ),
        "profile-title": _base64(facts.title[:MAX_TITLE]),
        "profile-update-interval": str(facts.update_hours),
        "cache-control": "no-store",
        "vary": "user-agent, accept",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    if attachment:
        found["content-disposition"] = (
            f"attachment; filename=\"{_ascii_name(facts.title)}\"; filename*=UTF-8''{quote(facts.title, safe='')}"
        )
    if facts.support_url:
        found["support-url"] = facts.support_url
    if facts.page_url:
        found["profile-web-page-url"] = facts.page_url
    if facts.announce:
        found["announce"] = _base64(facts.announce[:MAX_ANNOUNCE])
    return found


def _base64(text: str) -> str:
    return f"base64:{base64.b64encode(text.encode()).decode()}"


def _ascii_name(title: str) -> str:
    kept = "".join(
        character for character in title if character.isascii() and (character.isalnum() or character in "-_.")
    )
    return kept or "subscription"
