"""Why there is no link that works: the name of a configuration through which nothing passes.

A program that is given nothing keeps what it had or sends everything past the VPN, with the customer's own address. So each form
has a dead end that looks like a server and is called by the reason.
"""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from vpn.link import VlessLink


class NoAccess(enum.Enum):
    """Why a customer is given no link that works."""

    NO_SUBSCRIPTION = "none"  # there never was one
    EXPIRED = "expired"
    REVOKED = "revoked"
    ACTIVATING = "activating"  # paid for, and no node has confirmed the key yet
    FAILED = "failed"  # the key was given up
    NO_SERVER = "no server"  # a key, and no node of whose facts a link can be made
    OTHER_APP = "other app"  # links, and none that this program or form can use

    def text(self, language: str) -> str:
        """One short line that says what is the matter and what to do, in Russian for `ru…`, else in English."""
        russian, english = _TEXTS[self]
        return russian if language.lower().startswith("ru") else english


_TEXTS: Final = {
    NoAccess.NO_SUBSCRIPTION: ("Подписки ещё нет: купите её", "No subscription yet: buy one"),
    NoAccess.EXPIRED: ("Подписка закончилась: продлите её", "The subscription has ended: renew it"),
    NoAccess.REVOKED: ("Доступ отозван: напишите в поддержку", "Access was revoked: write to support"),
    NoAccess.ACTIVATING: (
        "Доступ ещё включается: обновите подписку через минуту",
        "Access is being set up: update in a minute",
    ),
    NoAccess.FAILED: ("Ключ не включился: напишите в поддержку", "The key could not be set up: write to support"),
    NoAccess.NO_SERVER: (
        "Сейчас нет рабочих серверов: обновите подписку позже",
        "No server works just now: update later",
    ),
    NoAccess.OTHER_APP: (
        "Это приложение не подключится: возьмите Happ или v2rayNG",
        "This app cannot connect: take Happ or v2rayNG",
    ),
}


def dead_link(name: str) -> VlessLink:
    """A link of this name that leads to a port of the customer's own device where nothing listens."""
    return VlessLink(UUID(int=0), "127.0.0.1", 1, name=name)
