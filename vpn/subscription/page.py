"""The page that a browser shows for a subscription: no scripts, nothing loaded from anywhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from vpn.link import VlessLink
from vpn.subscription.entries import labels
from vpn.subscription.qr import qr_svg

_TEXTS: Final = {
    "ru": {
        "how": "Отсканируйте код в приложении (Happ, v2rayNG, Streisand) или скопируйте адрес подписки:",
        "keys": "Отдельные ключи",
        "secret": "Эта страница — ваш доступ. Не показывайте её никому.",
    },
    "en": {
        "how": "Scan the code in an app (Happ, v2rayNG, Streisand), or copy the subscription's address:",
        "keys": "Single keys",
        "secret": "This page is your access. Show it to nobody.",
    },
}
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}"
    "svg{width:100%;max-width:18rem;height:auto}code{display:block;overflow-wrap:anywhere;user-select:all;"
    "background:#f3f3f3;padding:.6rem;border-radius:.4rem}"
)


def page(links: Sequence[VlessLink], title: str, url: str, language: str, why: str = "") -> bytes:
    """HTML. `url` is the subscription's own address; without one, the first link takes its place in the code.

    `language` is `ru`, else the page is English. `why` is said first: why there are no links.
    """
    language = "ru" if language.lower().startswith("ru") else "en"
    text = _TEXTS[language]
    subject = url or (links[0].render() if links else "")
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if why:
        parts.append(f"<p><strong>{html.escape(why)}</strong></p>")
    if subject:
        parts.append(f"<p>{text['how']}</p>{qr_svg(subject)}<code>{html.escape(subject)}</code>")
    if links:
        parts.append(f"<h2>{text['keys']}</h2>")
        named = zip(labels(links), links, strict=True)
        parts += [f"<p>{html.escape(name)}</p><code>{html.escape(link.render())}</code>" for name, link in named]
    parts.append(f"<p><small>{text['secret']}</small></p>")
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f'<meta name="referrer" content="no-referrer"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    ).encode()
