"""Which customers come, and what each does at which moment: the seed decides the whole month before it begins."""

from __future__ import annotations

import random
from typing import Final

import attrs

from demo.model import DAY, HOUR, Plan
from demo.providers import NAMES

FIRST_ID: Final = 100_001


@attrs.frozen
class Action:
    """What one customer does at one moment: `at` is in seconds from the beginning of the month, `amount` in kopecks."""

    at: float
    telegram_id: int
    kind: str
    """join, order, pay, buy, topup, balance, trial, grant, auto_renew, refund, dispute, compensate or withdraw, as
    `demo.actions` performs them."""
    plan: Plan | None = None
    amount: int = 0
    provider: str = ""
    referrer: int | None = None
    days: int = 0


@attrs.frozen
class Population:
    """All customers of a month, with their actions in order of time."""

    actions: tuple[Action, ...]
    customers: int
    with_tunnels: tuple[int, ...]
    """Telegram ids of those whose packets are checked; the first lapses, the second renews."""


PERSONAS: Final = (
    *("lapser", "keeper", "trialist", "saver", "poor_keeper", "returner"),
    *("inviter", "patron", "patron", "patron", "regretful", "disputer", "unserved"),
    *("late_payer", "guest", "converted", "long", "window_shopper", "extender"),
)
"""The first ones have one persona each. Three patrons earn the inviter, who comes right before them, enough to withdraw."""
_DRAWN: Final = {
    "lapser": 16,
    "keeper": 18,
    "trialist": 10,
    "saver": 9,
    "poor_keeper": 7,
    "returner": 8,
    "late_payer": 4,
    "guest": 4,
    "converted": 9,
    "long": 6,
    "window_shopper": 4,
    "extender": 5,
    "regretful": 2,
    "disputer": 1,
    "unserved": 1,
}
_ALONE: Final = ("late_payer", "disputer", "unserved", "inviter")
"""Nobody invited them."""
BACK_AT: Final = 20 * DAY
"""When money goes back, at one moment: after rewards are held back no more, and before the first plans end."""


def make_population(seed: int, customers: int) -> Population:
    """A population of this many customers. The first ones have one persona each, the others are drawn by weight. The
    same seed makes the same population.
    """
    rng = random.Random(seed)  # noqa: S311  decides what happens, guards nothing
    actions: list[Action] = []
    drawn = rng.choices(tuple(_DRAWN), tuple(_DRAWN.values()), k=max(0, customers - len(PERSONAS)))
    personas = [*PERSONAS, *drawn][:customers]
    inviter = FIRST_ID + PERSONAS.index("inviter")
    for number, persona in enumerate(personas):
        telegram_id = FIRST_ID + number
        # Most come in the first days, so that the month sees what becomes of them.
        arrives = (
            number * HOUR / 4 if number < len(PERSONAS) else max(1, round(rng.triangular(0, 14, 1) * 8)) * 3 * HOUR
        )
        referrer = None
        if persona == "patron":
            referrer, arrives = inviter, arrives + 2 * HOUR  # who invites is there before
        elif number >= 2 and persona not in _ALONE and rng.random() < 0.4:
            referrer = FIRST_ID + rng.randrange(2) if number < len(PERSONAS) else FIRST_ID + rng.randrange(12)
        actions.append(Action(arrives, telegram_id, "join", referrer=referrer))
        actions += _actions_of(persona, telegram_id, arrives + 60, rng)
    return Population(tuple(sorted(actions, key=lambda action: action.at)), len(personas), (FIRST_ID, FIRST_ID + 1))


def _actions_of(persona: str, telegram_id: int, start: float, rng: random.Random) -> list[Action]:
    provider, other = rng.choice(NAMES), rng.choice(NAMES)
    plan: Plan = (rng.choice(("basic", "basic", "plus")), 30)
    price = {"basic": 14_900, "plus": 29_900}[plan[0]]
    buys = Action(start, telegram_id, "buy", plan=plan, provider=provider)
    end = start + 30 * DAY
    match persona:
        case "lapser":
            return [buys]
        case "keeper":
            amount = price + rng.randrange(0, 20_000, 100)
            filled = Action(start + rng.uniform(1, 20) * DAY, telegram_id, "topup", amount=amount, provider=other)
            return [buys, Action(start + 60, telegram_id, "auto_renew"), filled]
        case "poor_keeper":
            # Renewal is tried 6 hours before the end, in vain; told of that, the customer tops up, or does not.
            rescue = Action(end - 4 * HOUR, telegram_id, "topup", amount=price + 1_000, provider=other)
            return [buys, Action(start + 60, telegram_id, "auto_renew"), *([rescue] if rng.random() < 0.6 else [])]
        case "trialist":
            return [Action(start, telegram_id, "trial")]
        case "converted":
            return [Action(start, telegram_id, "trial"), attrs.evolve(buys, at=start + rng.uniform(0.5, 4) * DAY)]
        case "saver":
            saved = Action(start, telegram_id, "topup", amount=price + 5_000, provider=provider)
            return [saved, Action(start + rng.uniform(0.2, 3) * DAY, telegram_id, "balance", plan=plan)]
        case "returner":
            return [buys, attrs.evolve(buys, at=end + rng.uniform(0.5, 1.5) * DAY, provider=other)]
        case "late_payer":
            late = Action(start + 2 * HOUR, telegram_id, "pay", plan=plan, provider="yookassa")
            return [Action(start, telegram_id, "order", plan=plan, provider="yookassa"), late]
        case "guest":
            return [Action(start, telegram_id, "grant", plan=("basic", 0), days=rng.choice((1, 7)))]
        case "long":
            return [attrs.evolve(buys, plan=(plan[0], rng.choice((90, 180, 365))))]
        case "window_shopper":
            return [Action(start, telegram_id, "order", plan=plan, provider=provider)]
        case "extender":
            return [buys, attrs.evolve(buys, at=start + rng.uniform(2, 25) * DAY, provider=other)]
        case "patron":
            return [attrs.evolve(buys, plan=("plus", 365))]
        case "inviter":
            return [Action(BACK_AT, telegram_id, "withdraw", amount=60_000)]
        case "regretful":
            return [buys, Action(BACK_AT, telegram_id, "refund")]
        case "unserved":
            return [buys, Action(BACK_AT, telegram_id, "compensate")]
        case "disputer":
            saved = Action(start, telegram_id, "topup", amount=price, provider="stripe")
            spent = Action(start + HOUR, telegram_id, "balance", plan=plan)
            return [saved, spent, Action(BACK_AT, telegram_id, "dispute", provider="stripe")]
    raise ValueError(persona)
