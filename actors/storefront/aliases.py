"""What the buttons and links of older messages mean: those of the system before this one, and `?start=` of the bot's address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from actors.storefront.buttons import Press, base36, read_press

TOO_OLD: Final = Press("ol")
"""The screen that says that a button is too old, with the way to the menu."""
_OLD: Final[Mapping[str, str]] = {
    "menu_main": "mn",
    "back_to_main": "mn",
    "menu_profile": "pf",
    "menu_vip_access": "pl",
    "menu_buy_vpn": "pl",
    "menu_instruction": "in",
    "menu_support": "su",
    "menu_about": "ru",
    "about_privacy": "ru",
    "menu_service_status": "st",
    "menu_referral": "rf",
    "referral_stats": "rf",
    "share_referral_link": "rf",
    "copy_referral_link": "rf",
    "menu_settings": "mn",
    "menu_ecosystem": "mn",
    "change_language": "la",
    "copy_key": "ky",
    "copy_vpn_key": "ky",
    "subscription_history": "hi",
    "enter_promo": "pr",
    "topup_balance": "tu",
    "topup_custom": "tc",
    "activate_trial": "tr",
    "withdraw_start": "rf",
}
_PREFIXES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"tariff_type:\w+"), "pl"),
    (re.compile(r"renewal_pay:.*"), "pl"),
    (re.compile(r"period:.*"), "pl"),
    (re.compile(r"pay:\w+"), "pl"),
    (re.compile(r"toggle_auto_renew:(on|off)"), "ar"),
)
_LANGUAGE = re.compile(r"lang_([a-z]{2})")
_TOPUP = re.compile(r"topup_amount:(\d{3,6})")
_REFERRER = re.compile(r"ref_?(\d{1,15})")
_PLAN = re.compile(r"plan_([a-z]{1,16})_(\d{1,4})")
_PROMO = re.compile(r"promo_([A-Za-z0-9_-]{3,32})")
_ORDER = re.compile(r"o_(\d{1,12})")
_PAYLOAD = re.compile(r"[A-Za-z0-9_-]{1,64}")


@attrs.frozen
class Start:
    """What a link to the bot asks for."""

    press: Press | None = None
    referrer: int | None = None


def read_data(data: str) -> Press:
    """What a button asks for, whoever made it; the screen "too old" for data that means nothing any more."""
    press = read_press(data)
    if press is not None:
        return press
    if data in _OLD:
        return Press(_OLD[data])
    if found := _LANGUAGE.fullmatch(data):
        return Press("ls", (found[1],))
    if found := _TOPUP.fullmatch(data):
        return Press("ta", (base36(int(found[1])),))
    for pattern, screen in _PREFIXES:
        if pattern.fullmatch(data):
            return Press(screen)
    return TOO_OLD


def read_start(payload: str) -> Start:
    """What follows `/start`; nothing for what is no payload of ours."""
    payload = payload.strip()
    if not _PAYLOAD.fullmatch(payload):
        return Start()
    if found := _REFERRER.fullmatch(payload):
        return Start(referrer=int(found[1]))
    if found := _PLAN.fullmatch(payload):
        return Start(Press("cf", (found[1], base36(int(found[2])))))
    if found := _PROMO.fullmatch(payload):
        return Start(Press("pe", (found[1],)))
    if found := _ORDER.fullmatch(payload):
        return Start(Press("or", (base36(int(found[1])),)))
    return Start()
