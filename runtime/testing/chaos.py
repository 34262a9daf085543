"""Kills actors at every message boundary while they work, in an order that a seed decides, and reports where. For
tests.

    monkey = ChaosMonkey(system, seed=7, victims=["ledger", "desk"])
    report = await monkey.run(one_round_of_work, kills=300, check=invariants)

A boundary is a failpoint (see `runtime.failpoints`): `before:<Message>` and `after:<Message>` of each handler,
`task:<name>` of each task, and whatever the actor names with `context.failpoint`.
"""

from __future__ import annotations

import fnmatch
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import NoReturn, Protocol, runtime_checkable

import attrs
import trio
import trio.testing

from runtime.core.address import Address
from runtime.core.ref import AddressState, Ref
from runtime.core.services import Services
from runtime.events import Event
from runtime.message import Message


@attrs.frozen(order=True)
class Boundary:
    """A place where an actor can be killed."""

    actor: str
    point: str

    def __str__(self) -> str:
        return f"{self.actor}/{self.point}"


@attrs.frozen
class Kill:
    """One that happened."""

    round: int
    """In which round of work, counted from 1; one that was armed earlier may strike later."""
    boundary: Boundary
    visit: int
    """The visit of the boundary, counted from the arming."""


@attrs.frozen
class ChaosReport:
    """What a campaign did."""

    seed: int
    rounds: int
    kills: tuple[Kill, ...]
    boundaries: tuple[Boundary, ...]
    """All that the victims' handlers, the rounds and `expect` named, except the spared ones; sorted."""
    passed: frozenset[Boundary]
    """Those that were visited at all."""

    @property
    def hits(self) -> Counter[Boundary]:
        """Kills per boundary."""
        return Counter(kill.boundary for kill in self.kills)

    @property
    def never_hit(self) -> tuple[Boundary, ...]:
        """Boundaries at which no actor was killed; sorted."""
        hits = self.hits
        return tuple(boundary for boundary in self.boundaries if not hits[boundary])

    def __str__(self) -> str:
        head = f"seed {self.seed}: {len(self.kills)} kills at {len(self.hits)} of {len(self.boundaries)} boundaries"
        lines = [f"{head} in {self.rounds} rounds"]
        hits = self.hits
        for boundary in self.boundaries:
            fate = str(hits[boundary]) if hits[boundary] else self._why(boundary)
            lines.append(f"  {boundary!s:<44} {fate}")
        return "\n".join(lines)

    def _why(self, boundary: Boundary) -> str:
        return "NEVER HIT" if boundary in self.passed else "NEVER HIT: no round passed it"


class ChaosFailed(AssertionError):
    """A boundary was never hit, or a victim did not come back. `report` is what the campaign did until then."""

    def __init__(self, what: str, report: ChaosReport) -> None:
        super().__init__(f"{what}\n{report}")
        self.report = report


DEEPEST = 10
"""A kill is aimed at one of the first so many visits of its boundary."""


class HasServices(Protocol):
    """A running system: `testing.actor_system()`'s, a `System`, or anything around a Supervisor with its Services."""

    @property
    def services(self) -> Services:
        """Of which the failpoints, the registry and the events are used."""
        ...


@runtime_checkable
class _KnowsWhenUp(Protocol):
    """A system without a supervisor, and so without its events, that tells in another way when an actor serves."""

    async def up(self, ref: Ref, incarnation: int = 1) -> None: ...


class ChaosMonkey:
    """One campaign against a running system, on trio's own clock or a virtual one.

    `victims` are names of actors. `spare` are patterns such as `"ledger/after:Crash"` or `"*/task:*"` of boundaries to leave
    alone; `expect` names boundaries (`"ledger/written"`) that must be hit although no handler table lists them. A round arms
    at most `at_once` kills.

    The same seed gives the same kills if the work and the schedule are the same (see `runtime.testing.virtual_time`).
    """

    def __init__(
        self,
        system: HasServices,
        *,
        seed: int,
        victims: Sequence[str],
        expect: Iterable[str] = (),
        spare: Iterable[str] = (),
        at_once: int = 3,
        heal_within: float = 300.0,
    ) -> None:
        """`heal_within`: seconds on trio's clock after a round, within which all victims must serve again. Kills that follow
        one another have to wait for their backoffs, so make it no shorter than `at_once` of the longest.

        Raises UnknownActor for a victim that the system does not have, ValueError if there is none or if it does not run.
        """
        if not victims or at_once < 1:
            raise ValueError(f"a campaign needs victims and kills: victims={list(victims)!r}, at_once={at_once!r}")
        self.seed = seed
        self._system = system
        self._failpoints = system.services.failpoints
        self._chance = random.Random(seed)  # noqa: S311  # it is to be repeated
        self._victims: list[Address] = [system.services.registry.find(name) for name in victims]
        self._spare = tuple(spare)
        self._at_once = at_once
        self._heal_within = heal_within
        self._known: set[Boundary] = set()
        self._calm_visits: Counter[Boundary] = Counter()
        self._armed: dict[Boundary, int] = {}
        self._fired: Counter[Boundary] = Counter()
        self._visited: Counter[Boundary] = Counter()
        self._kills: list[Kill] = []
        self._rounds = 0
        self._strange_visits: Counter[Boundary] = Counter()
        """Visits that were counted before the campaign."""
        for address in self._victims:
            self._learn(
                Boundary(address.name, f"{side}:{kind.__name__}")
                for kind in _handled_by(address)
                for side in ("before", "after")
            )
        self._learn(Boundary(*name.split("/", 1)) for name in expect)
        self._deck = self._deal()

    async def run(
        self,
        work: Callable[[], Awaitable[object]],
        *,
        kills: int = 100,
        check: Callable[[], Awaitable[object]] | None = None,
        most_rounds: int | None = None,
    ) -> ChaosReport:
        """Repeat `work` until so many kills happened and each boundary was hit; the first round is undisturbed.

        `work` is one round of what the system is for; it has to end whatever is killed meanwhile. After each round the
        monkey waits until the loop is idle and all victims serve again, and then calls `check`. What `work` or `check`
        raises comes out with a note that says the seed, the round and the kills. May be called once.

        Raises ChaosFailed if a boundary was never hit, be it that no round passes it, after `most_rounds` (default:
        100 + 4 × `kills`); and if a victim does not come back. Afterwards nothing is armed any more.
        """
        if self._rounds:
            raise RuntimeError("a monkey runs one campaign; make another one for the next")
        was_enabled, self._failpoints.enabled = self._failpoints.enabled, True
        for point in self._failpoints.report():
            boundary = Boundary(point.actor, point.point)
            self._strange_visits[boundary], self._fired[boundary] = point.visited, point.fired
        most = 100 + 4 * kills if most_rounds is None else most_rounds
        try:
            await self._round(work, check)
            self._calm_visits = self._visited.copy()
            while self._rounds < most and not self._is_done(kills):
                self._arm(is_enough=len(self._kills) >= kills)
                await self._round(work, check)
        finally:
            for boundary in self._armed:
                self._failpoints.disarm(boundary.actor, boundary.point)
            self._armed.clear()
            self._failpoints.enabled = was_enabled
        report = self.report()
        if report.never_hit:
            self._fail(f"never hit: {', '.join(map(str, report.never_hit))}")
        return report

    def report(self) -> ChaosReport:
        """What was done so far."""
        passed = frozenset(boundary for boundary in self._known if self._visited[boundary])
        return ChaosReport(self.seed, self._rounds, tuple(self._kills), tuple(sorted(self._known)), passed)

    # --- a round -----------------------------------------------------------------------------------------------------

    async def _round(
        self, work: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]] | None
    ) -> None:
        self._rounds += 1
        armed = ", ".join(f"{boundary} at visit {visit}" for boundary, visit in self._armed.items()) or "nothing"
        try:
            await work()
            await self._healed()
            self._look()
            if check is not None:
                await check()
        except Exception as error:
            error.add_note(f"chaos: seed {self.seed}, round {self._rounds}, armed: {armed}")
            raise

    async def _healed(self) -> None:
        news = _News()
        unsubscribe = self._system.services.events.subscribe(news)
        try:
            with trio.move_on_after(self._heal_within):
                while True:
                    await trio.testing.wait_all_tasks_blocked()
                    away = [address for address in self._victims if address.state is not AddressState.UP]
                    if not away or any(address.state in (AddressState.PARKED, AddressState.DEAD) for address in away):
                        break
                    if isinstance(self._system, _KnowsWhenUp):
                        await self._system.up(away[0].ref)
                    else:
                        await news.wait()
        finally:
            unsubscribe()
        away = [address for address in self._victims if address.state is not AddressState.UP]
        if away:
            self._look()
            states = ", ".join(f"{address.name} is {address.state.value}" for address in away)
            self._fail(f"not back within {self._heal_within:g} s: {states}")

    def _look(self) -> None:
        """Note what was visited and what fired since the last look."""
        names = {address.name for address in self._victims}
        for point in self._failpoints.report():
            if point.actor not in names:
                continue
            boundary = Boundary(point.actor, point.point)
            self._visited[boundary] = point.visited - self._strange_visits[boundary]
            self._learn([boundary] if self._visited[boundary] else [])
            if point.fired > self._fired[boundary] and boundary in self._armed:
                self._kills.append(Kill(self._rounds, boundary, self._armed.pop(boundary)))
            self._fired[boundary] = point.fired

    # --- aiming ------------------------------------------------------------------------------------------------------

    def _learn(self, boundaries: Iterable[Boundary]) -> None:
        self._known.update(
            boundary
            for boundary in boundaries
            if not any(fnmatch.fnmatchcase(str(boundary), pattern) for pattern in self._spare)
        )

    def _deal(self) -> Iterator[Boundary]:
        """All boundaries that are passed, in random order, again and again; new ones join at the next turn."""
        while True:
            deck = sorted(boundary for boundary in self._known if self._visited[boundary])
            self._chance.shuffle(deck)
            yield from deck

    def _arm(self, *, is_enough: bool) -> None:
        hits = Counter(kill.boundary for kill in self._kills)
        aims = {boundary for boundary in self._known if self._visited[boundary] and boundary not in self._armed}
        if is_enough:
            aims = {boundary for boundary in aims if not hits[boundary]}
        for _ in range(min(len(aims), self._chance.randint(1, self._at_once))):
            boundary = next(boundary for boundary in self._deck if boundary in aims)
            aims.remove(boundary)
            visits = min(DEEPEST, max(1, self._calm_visits[boundary]))
            self._armed[boundary] = visit = self._chance.randint(1, visits)
            self._failpoints.arm(boundary.actor, boundary.point, visit)

    def _is_done(self, kills: int) -> bool:
        hit = {kill.boundary for kill in self._kills}
        # Who is never passed cannot be hit by going on.
        return len(self._kills) >= kills and all(boundary in hit for boundary in self._known if self._visited[boundary])

    def _fail(self, what: str) -> NoReturn:
        raise ChaosFailed(what, self.report())


def _handled_by(address: Address) -> Iterable[type[Message]]:
    if address.state is not AddressState.UP:
        raise ValueError(f"{address.name!r} is {address.state.value}: start the system before the campaign")
    return address.handled


class _News:
    """A subscriber that lets one task wait for the next event of any kind."""

    def __init__(self) -> None:
        self._came = trio.Event()

    def __call__(self, event: Event) -> None:
        self._came.set()

    async def wait(self) -> None:
        await self._came.wait()
        self._came = trio.Event()
