"""The month: time jumps from one moment at which something happens to the next, and only once all work is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import attrs
import trio

from demo.actions import ActionRunner
from demo.customers import Action, Population
from demo.database import DemoDatabase
from demo.model import DAY, HOUR, Model
from demo.packets import Site, Visitor, visitor

LENGTH: Final = 34 * DAY
"""Long enough for plans of 30 days to be renewed or to lapse, and for some to come back."""
_BUNCH: Final = 1_200.0
"""Moments that are closer together than these seconds are one jump."""
_CALM_BEFORE: Final = 5.0
_CALM_AFTER: Final = 90.0
"""Nothing that depends on the exact second lies so close to a moment at which customers act."""
_AT_ONCE: Final = 6
"""Customers who act at the same time."""
_OWN_MONEY: Final = ("balance",)
"""Actions that need what others bring in at the same moment: they come after it."""
_SAMPLE: Final = 20
MISHAPS: Final = ("activation", "node.local", "pool.main", "fast_expiry", "auto_renewal")
"""Actors that are killed while customers act, evenly over the month. A killed `notifications` may repeat a message, which it
says; a killed `gateway` would open another port here, where it takes a free one."""


@attrs.define(eq=False)
class Month:
    """One month of one population.

    `progress` is called with how far the month is, 0 to 1, and its day in words. After `run`, `problems` says what was
    not as it ought to be, `packets` what was proven with packets, and `killed` which actors were killed meanwhile.
    """

    population: Population
    database: DemoDatabase
    runner: ActionRunner
    model: Model
    site: Site
    progress: Callable[[float, str], None]
    problems: list[str] = attrs.field(factory=list)
    jumps: int = 0
    packets: list[str] = attrs.field(factory=list)
    """What was proven with packets, as sentences."""
    _visitors: dict[int, Visitor] = attrs.field(factory=dict)
    killed: list[str] = attrs.field(factory=list)
    _noted: set[str] = attrs.field(factory=set)
    _begin: float = 0.0

    async def run(self) -> None:
        """Play the whole month. What is not as it ought to be is noted in `problems`, with its day."""
        self._begin = self.database.now()
        actions = list(self.population.actions)
        end = self._begin + LENGTH
        async with AsyncExitStack() as stack:
            while (moment := self._next(actions, end)) is not None:
                await self.database.jump(moment)
                self.jumps += 1
                self.progress((moment - self._begin) / LENGTH, self._day())
                await self._rest()
                due = [action for action in actions if self._begin + action.at <= moment]
                actions = actions[len(due) :]
                for phase in _phases(due):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._have_mishap, (moment - self._begin) / LENGTH)
                        nursery.start_soon(self._together, phase)
                    await self._rest()
                await self._compare()
                await self._look_at_packets(stack)

    # -- time -----------------------------------------------------------------------------------------------------------

    def _next(self, actions: Sequence[Action], end: float) -> float | None:
        now = self.database.now()
        if now >= end:
            return None
        moments = sorted(
            moment
            for moment in (
                *(self._begin + action.at for action in actions),
                *(each + 60 for each in self.model.moments()),
                end,
            )
            if now < moment <= end
        )
        if actions and self._begin + actions[0].at <= now:
            moments.insert(0, now + 1)
        chosen = moments[0]
        for moment in moments:
            if moment < moments[0] + _BUNCH:
                chosen = moment
        while not self.model.is_clear(chosen, _CALM_BEFORE, _CALM_AFTER):
            chosen += 30
        return chosen

    async def _rest(self) -> None:
        """Until all work is done; what ought to have happened by itself has then happened in the model, too."""
        await self.database.drain()
        self.model.settle(self.database.now())

    def _day(self) -> str:
        passed = self.database.now() - self._begin
        return f"day {int(passed // DAY) + 1}, {int(passed % DAY // HOUR):02d}:{int(passed % HOUR // 60):02d}"

    # -- people ---------------------------------------------------------------------------------------------------------

    async def _together(self, actions: Sequence[Action]) -> None:
        """All actions of one moment at the same time, except those of customers with the same referrer: these go one
        after another, because rewards depend on their order.
        """
        slots = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for one_by_one in in_turn(actions, self.model):
                nursery.start_soon(self._one, one_by_one, slots)

    async def _one(self, actions: Sequence[Action], slots: trio.CapacityLimiter) -> None:
        async with slots:
            for action in actions:
                await self.runner.perform(action)

    async def _have_mishap(self, share: float) -> None:
        number = len(self.killed)
        if number < len(MISHAPS) and share >= (number + 0.5) / len(MISHAPS):
            self.killed.append(MISHAPS[number])
            await self.runner.installation.command("kill", MISHAPS[number])

    # -- comparison -----------------------------------------------------------------------------------------------------

    async def _compare(self) -> None:
        """The database and the node against what ought to be."""
        found, served, now = await self.database.standings(), await self.database.served(), self.database.now()
        for telegram_id, account in self.model.accounts.items():
            standing = found.get(telegram_id)
            if standing is None:
                self._note(f"customer {telegram_id} is not in the database")
                continue
            found_there = (standing.paid, standing.credit, standing.earned, standing.debt)
            expected_there = (account.paid, account.credit, account.earned, account.debt)
            if found_there != expected_there:
                self._note(
                    f"customer {telegram_id} has {found_there} kopecks paid in, credited, earned and owed, not {expected_there}"
                )
            span = account.end
            if span is None or standing.expires_at is None:
                if span is not None or standing.expires_at is not None:
                    self._note(f"customer {telegram_id} has access until {standing.expires_at}, expected {span}")
            elif not span.low - 1 <= standing.expires_at <= span.high + 1:
                self._note(f"customer {telegram_id}'s access ends {standing.expires_at - span.high:+.0f} s off")
        expected = self.model.with_access(now)
        if missing := expected - served:
            self._note(f"the node does not serve {sorted(missing)}, who have access")
        if surplus := served - expected:
            self._note(f"the node serves {sorted(surplus)}, who have no access")

    def _note(self, problem: str) -> None:
        # What is wrong at one moment is so at the next: the first one tells when it began.
        if problem not in self._noted and len(self.problems) < _SAMPLE:
            self._noted.add(problem)
            self.problems.append(f"{self._day()}: {problem}")

    # -- packets --------------------------------------------------------------------------------------------------------

    async def _look_at_packets(self, stack: AsyncExitStack) -> None:
        for telegram_id in self.population.with_tunnels:
            account, now = self.model.accounts.get(telegram_id), self.database.now()
            if account is None or account.end is None:
                continue
            found = self._visitors.get(telegram_id)
            if account.has_access(now):
                if found is None:
                    link = await self.runner.link(telegram_id)
                    found = self._visitors[telegram_id] = await stack.enter_async_context(
                        visitor(telegram_id, link, self.site)
                    )
                    self.packets.append(f"{self._day()}: customer {telegram_id} is connected")
                if not await found.is_still_open():
                    self._note(f"the connection of customer {telegram_id} broke, who has access")
                elif not await found.passes():
                    self._note(f"no packets pass for customer {telegram_id}, who has access")
            elif found is not None:
                del self._visitors[telegram_id]
                if not await found.is_cut():
                    self._note(f"the connection of customer {telegram_id} is open after the end of the access")
                elif await found.passes():
                    self._note(f"packets pass for customer {telegram_id} after the end of the access")
                else:
                    self.packets.append(f"{self._day()}: customer {telegram_id} was cut off at the end of the access")
        if self._begin + LENGTH <= self.database.now():
            for telegram_id in self._visitors:
                self.packets.append(
                    f"{self._day()}: customer {telegram_id} is connected still, on the first connection"
                )


def in_turn(actions: Sequence[Action], model: Model) -> list[list[Action]]:
    """What is done one after the other: each one's own actions, and those of the friends of one referrer, whose percent depends
    on how many friends have paid before."""
    referrers = {action.telegram_id: action.referrer for action in actions if action.referrer is not None}
    referrers |= {who: account.referrer for who, account in model.accounts.items() if account.referrer is not None}
    turns: dict[object, list[Action]] = {}
    for action in actions:
        referrer = referrers.get(action.telegram_id)
        turns.setdefault(("alone", action.telegram_id) if referrer is None else ("friends of", referrer), []).append(
            action
        )
    return list(turns.values())


def _phases(due: Sequence[Action]) -> list[list[Action]]:
    first = [action for action in due if action.kind not in _OWN_MONEY]
    return [phase for phase in (first, [action for action in due if action.kind in _OWN_MONEY]) if phase]
