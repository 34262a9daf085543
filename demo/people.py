"""Who comes, and what they will do when: the whole month is decided by the seed before it begins."""

from __future__ import annotations

import random
from typing import Final

import attrs

from demo.model import DAY, HOUR, Plan
from demo.providers import NAMES

FIRST_ID: Final = 100_001


@attrs.frozen
class Deed:
    """What one customer does at one moment, in seconds from the beginning."""

    at: float
    who: int
    """Telegram id."""
    what: str
    """join, order, pay, buy, topup, balance, trial, grant, auto_renew: see demo.deeds."""
    plan: Plan | None = None
    amount: int = 0
    provider: str = ""
    referrer: int | None = None
    days: int = 0


@attrs.frozen
class Town:
    """Everybody, in the order of what they do."""

    deeds: tuple[Deed, ...]
    customers: int
    with_tunnels: tuple[int, ...]
    """Telegram ids of those whose packets are looked at; the first lapses, the second renews."""


PERSONAS: Final = (
    *("lapser", "keeper", "trialist", "saver", "poor_keeper"),
    *("returner", "late_payer", "guest", "converted", "long", "window_shopper", "extender"),
)
_WEIGHTS: Final = (16, 18, 10, 9, 7, 8, 4, 4, 9, 6, 4, 5)


def town(seed: int, customers: int) -> Town:
    """A town of so many customers; the first dozen are one of each kind."""
    chance = random.Random(seed)  # noqa: S311  decides what happens, guards nothing
    deeds: list[Deed] = []
    kinds = [*PERSONAS, *chance.choices(PERSONAS, _WEIGHTS, k=max(0, customers - len(PERSONAS)))][:customers]
    for number, kind in enumerate(kinds):
        who = FIRST_ID + number
        # Most come in the first days, so that the month sees what becomes of them.
        arrives = (
            number * HOUR / 4 if number < len(PERSONAS) else max(1, round(chance.triangular(0, 14, 1) * 8)) * 3 * HOUR
        )
        referrer = None
        if number >= 2 and kind != "late_payer" and chance.random() < 0.4:
            referrer = FIRST_ID + chance.randrange(2) if number < len(PERSONAS) else FIRST_ID + chance.randrange(12)
        deeds.append(Deed(arrives, who, "join", referrer=referrer))
        deeds += _life(kind, who, arrives + 60, chance)
    return Town(tuple(sorted(deeds, key=lambda deed: deed.at)), len(kinds), (FIRST_ID, FIRST_ID + 1))


def _life(kind: str, who: int, start: float, chance: random.Random) -> list[Deed]:
    provider, other = chance.choice(NAMES), chance.choice(NAMES)
    plan: Plan = (chance.choice(("basic", "basic", "plus")), 30)
    price = {"basic": 14_900, "plus": 29_900}[plan[0]]
    buys = Deed(start, who, "buy", plan=plan, provider=provider)
    end = start + 30 * DAY
    match kind:
        case "lapser":
            return [buys]
        case "keeper":
            amount = price + chance.randrange(0, 20_000, 100)
            filled = Deed(start + chance.uniform(1, 20) * DAY, who, "topup", amount=amount, provider=other)
            return [buys, Deed(start + 60, who, "auto_renew"), filled]
        case "poor_keeper":
            # Renewal is tried 6 hours before the end, in vain; told of that, the customer tops up, or does not.
            rescue = Deed(end - 4 * HOUR, who, "topup", amount=price + 1_000, provider=other)
            return [buys, Deed(start + 60, who, "auto_renew"), *([rescue] if chance.random() < 0.6 else [])]
        case "trialist":
            return [Deed(start, who, "trial")]
        case "converted":
            return [Deed(start, who, "trial"), attrs.evolve(buys, at=start + chance.uniform(0.5, 4) * DAY)]
        case "saver":
            saved = Deed(start, who, "topup", amount=price + 5_000, provider=provider)
            return [saved, Deed(start + chance.uniform(0.2, 3) * DAY, who, "balance", plan=plan)]
        case "returner":
            return [buys, attrs.evolve(buys, at=end + chance.uniform(0.5, 1.5) * DAY, provider=other)]
        case "late_payer":
            late = Deed(start + 2 * HOUR, who, "pay", plan=plan, provider="yookassa")
            return [Deed(start, who, "order", plan=plan, provider="yookassa"), late]
        case "guest":
            return [Deed(start, who, "grant", plan=("basic", 0), days=chance.choice((1, 7)))]
        case "long":
            return [attrs.evolve(buys, plan=(plan[0], chance.choice((90, 180, 365))))]
        case "window_shopper":
            return [Deed(start, who, "order", plan=plan, provider=provider)]
        case "extender":
            return [buys, attrs.evolve(buys, at=start + chance.uniform(2, 25) * DAY, provider=other)]
    raise ValueError(kind)
