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
    """join, order, pay, buy, topup, balance, trial, grant or auto_renew, as `demo.actions` performs them."""
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
    *("lapser", "keeper", "trialist", "saver", "poor_keeper"),
    *("returner", "late_payer", "guest", "converted", "long", "window_shopper", "extender"),
)
_WEIGHTS: Final = (16, 18, 10, 9, 7, 8, 4, 4, 9, 6, 4, 5)


def make_population(seed: int, customers: int) -> Population:
    """A population of this many customers. The first dozen have one persona each, the others are drawn by weight. The
    same seed makes the same population.
    """
    rng = random.Random(seed)  # noqa: S311  decides what happens, guards nothing
    actions: list[Action] = []
    personas = [*PERSONAS, *rng.choices(PERSONAS, _WEIGHTS, k=max(0, customers - len(PERSONAS)))][:customers]
    for number, persona in enumerate(personas):
        telegram_id = FIRST_ID + number
        # Most come in the first days, so that the month sees what becomes of them.
        arrives = (
            number * HOUR / 4 if number < len(PERSONAS) else max(1, round(rng.triangular(0, 14, 1) * 8)) * 3 * HOUR
        )
        referrer = None
        if number >= 2 and persona != "late_payer" and rng.random() < 0.4:
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
    raise ValueError(persona)
