"""The story of a customer, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from db.stories import CustomerStory, StoryPart
from runtime.cli import styled, table
from runtime.wording import moment


def story_data(found: CustomerStory) -> dict[str, object]:
    """As `--json` shows it. The parts are lists of objects, by name."""
    held, view = found.purses, found.subscription
    return {
        "telegram_id": found.customer.telegram_id,
        "created_at": found.customer.created_at.isoformat(),
        "reachable": found.customer.is_reachable,
        "vip": found.customer.is_vip,
        "personal_discount": found.customer.personal_discount_percent,
        "currency": held.balance.currency,
        "balance": held.balance.amount,
        "paid": held.paid.amount,
        "credit": held.credit.amount,
        "earned": held.earned.amount,
        "debt": held.debt.amount,
        "withdrawable": found.withdrawable.amount.amount,
        "subscription": None
        if view is None
        else {
            "tariff": view.tariff,
            "state": view.state,
            "running": view.is_running,
            "expires_at": view.expires_at.isoformat(),
            "auto_renew": view.auto_renew,
        },
        "uploaded": found.traffic.uploaded,
        "downloaded": found.traffic.downloaded,
        "parts": {
            part.name.lower(): {
                "rows": [dict(zip(part.columns, row, strict=True)) for row in part.rows],
                "cut": part.is_cut,
            }
            for part in found.parts
        },
    }


def render_story(found: CustomerStory) -> str:
    """As people read it: who, what they hold, and a table for each part that has rows."""
    who, held, view = found.customer, found.purses, found.subscription
    marks = [word for word, holds in (("VIP", who.is_vip), ("not reachable by the bot", not who.is_reachable)) if holds]
    access = "never had access"
    if view is not None:
        state = "runs" if view.is_running else view.state if view.state != "active" else "expired"
        access = (
            f"{view.tariff}, {state}, until {moment(view.expires_at)}{', renews itself' if view.auto_renew else ''}"
        )
    rows = [
        ("customer", f"{who.telegram_id}, since {moment(who.created_at)}{''.join(f', {mark}' for mark in marks)}"),
        ("access", access),
        ("balance", f"{held.balance}: {held.paid} paid in, {held.credit} credited, {held.earned} earned"),
        *([("debt", f"{held.debt}, which later rewards pay")] if held.debt else []),
        ("withdraw", f"{found.withdrawable.amount} now, {found.withdrawable.unmatured} held back"),
        ("friends", f"{found.standing.friends} paying, {found.standing.earned} earned by them"),
        ("traffic", f"{_bytes(found.traffic.uploaded)} up, {_bytes(found.traffic.downloaded)} down"),
    ]
    lines = [f"{label:<10}{value}" for label, value in rows]
    for part in found.parts:
        if part.rows:
            lines += ["", styled(part.name, "strong"), _part(part)]
            if part.is_cut:
                lines.append("and older ones, which only the database has")
    return "\n".join(lines)


def _part(part: StoryPart) -> str:
    return table(part.columns, [[_shown(value) for value in row] for row in part.rows], notes=True)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if len(text) >= len("2030-01-31T12:00:05") and text[4:5] == "-" and text[10:11] == "T":
        try:
            return moment(datetime.fromisoformat(text))
        except ValueError:
            return text
    return text


def _bytes(count: int) -> str:
    for unit, size in _units():
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _units() -> Iterable[tuple[str, int]]:
    return (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
