"""The chaos monkey visits every boundary, repeats itself by seed, and a tree lets it do so without harm."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
import pytest
import trio

from runtime.core.actor import Actor, handler
from runtime.core.ref import Ref
from runtime.errors import ActorCrashed, ActorDead, ActorRestarting, UnknownActor
from runtime.message import Message
from runtime.supervision.events import ChildExited, ChildStarted
from runtime.testing.system import (
    Boundary,
    ChaosFailed,
    ChaosMonkey,
    ChaosReport,
    Crash,
    Echo,
    FailableActor,
    Kill,
    OnCrash,
    actor_system,
    run_virtual,
)
from tests.runtime.testing.ledger_tree import LedgerTree, ledger_tree

ROOT = Path(__file__).parents[3]
VICTIMS = ("ledger", "desk", "auditor")
BOUNDARIES = {
    *("ledger/before:Post", "ledger/written", "ledger/after:Post", "ledger/before:CountLines"),
    *("ledger/after:CountLines", "desk/before:Buy", "desk/after:Buy", "auditor/before:Audit"),
    *("auditor/after:Audit", "auditor/task:routine", "auditor/task:answer"),
}
REST = ("failable*/*:Crash", "failable*/*:Hang", "failable*/*:Swallow", "failable*/task:*")
"""All of a FailableActor that a round of echoes does not pass, and its task."""


@attrs.frozen
class Campaign:
    """All that can be seen of one."""

    report: ChaosReport
    tree: LedgerTree

    @property
    def story(self) -> list[str]:
        """What the supervisor said."""
        return [event.line() for event in self.tree.services.events.recent()]

    def exits(self) -> Counter[str]:
        """Crashes by actor."""
        events = self.tree.services.events.recent(10_000)
        return Counter(event.actor for event in events if isinstance(event, ChildExited) and event.reason == "crashed")

    def starts(self) -> Counter[str]:
        """Incarnations that served, by actor."""
        events = self.tree.services.events.recent(10_000)
        return Counter(event.actor for event in events if isinstance(event, ChildStarted))


async def on_the_ledger(seed: int, kills: int) -> Campaign:
    async with ledger_tree() as tree:
        monkey = ChaosMonkey(tree, seed=seed, victims=VICTIMS)

        async def nothing_is_lost() -> None:
            hits, book = monkey.report().hits, tree.book
            assert book.twice == []
            for numbers in book.written.values():
                assert numbers == sorted(set(numbers))
            # A kill before the handler costs the posting in hand, any other kill costs none, and nothing else does.
            lost = book.sent.total() - book.lines
            assert lost == hits[Boundary("ledger", "before:Post")]

        report = await monkey.run(tree.work, kills=kills, check=nothing_is_lost)
        return Campaign(report, tree)


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    """300 kills; what the tests below look at."""
    return run_virtual(on_the_ledger, 1, 300, seed=1)


def test_every_boundary_of_every_victim_is_hit(campaign: Campaign) -> None:
    assert len(campaign.report.kills) >= 300
    assert {str(boundary) for boundary in campaign.report.boundaries} == BOUNDARIES
    assert campaign.report.never_hit == ()
    assert min(campaign.report.hits.values()) >= 300 // len(BOUNDARIES) // 2


def test_tells_are_handled_in_order_through_300_kills(campaign: Campaign) -> None:
    written = campaign.tree.book.written
    assert set(written) == {"anna", "bert", "desk"}
    for numbers in written.values():
        assert numbers == sorted(set(numbers))
        assert len(numbers) > 100


def test_asks_are_answered_or_fail_at_once_through_300_kills(campaign: Campaign) -> None:
    assert {waited for _, waited in campaign.tree.outcomes} == {0.0}
    assert {outcome for outcome, _ in campaign.tree.outcomes} >= {"answered", "ActorCrashed", "ActorRestarting"}
    assert len(campaign.tree.outcomes) == campaign.report.rounds * 6


def test_every_kill_is_one_crash_and_every_crash_one_restart(campaign: Campaign) -> None:
    kills = campaign.report.kills
    killed = Counter(kill.boundary.actor for kill in kills)
    crashed = campaign.exits()
    assert (crashed["ledger"], crashed["desk"]) == (killed["ledger"], killed["desk"])
    # The auditor's tasks and its message loop may both be killed in one turn of the loop: that is one crash.
    auditor_by_round = Counter(kill.round for kill in kills if kill.boundary.actor == "auditor")
    could_coincide = sum(count > 1 for count in auditor_by_round.values())
    assert killed["auditor"] - could_coincide <= crashed["auditor"] <= killed["auditor"]
    for name in VICTIMS:
        assert campaign.tree.ref(name).incarnation == campaign.starts()[name] == crashed[name] + 1


def test_no_two_incarnations_of_an_actor_run_at_once(campaign: Campaign) -> None:
    assert campaign.tree.book.twice == []
    assert campaign.tree.book.running.total() == 0


def test_a_seed_repeats_the_kills_and_all_that_follows_from_them() -> None:
    first, again = (run_virtual(on_the_ledger, 7, 40, seed=7) for _ in range(2))
    assert first.report == again.report
    assert first.tree.book.written == again.tree.book.written
    assert first.tree.outcomes == again.tree.outcomes
    assert first.story == again.story


def test_a_seed_repeats_the_kills_in_another_process() -> None:
    here = run_virtual(on_the_ledger, 7, 40, seed=7)
    code = (
        "from runtime.testing.system import run_virtual; from tests.runtime.testing.test_chaos import on_the_ledger; "
        "print(run_virtual(on_the_ledger, 7, 40, seed=7).report.kills)"
    )
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == repr(here.report.kills)


def test_another_seed_kills_in_another_order() -> None:
    first, other = (run_virtual(on_the_ledger, seed, 40, seed=7) for seed in (7, 8))
    assert first.report.kills != other.report.kills


def test_after_the_campaign_nothing_is_armed_and_nobody_counts(campaign: Campaign) -> None:
    failpoints = campaign.tree.services.failpoints
    assert not failpoints.enabled
    assert all(point.armed_for is None for point in failpoints.report())


@attrs.frozen
class Never(Message):
    """Nobody sends this."""


@attrs.define(eq=False)
class Worker(Actor):
    """Role: has a handler that is never used. Owns nothing. On crash: nothing is lost."""

    @handler
    async def echo(self, message: Echo) -> int:
        """Answer."""
        return message.number

    @handler
    async def never(self, _: Never) -> None:
        """Not called."""


async def echo(ref: Ref) -> None:
    """Four asks, whatever becomes of them."""
    for number in range(4):
        with contextlib.suppress(ActorCrashed, ActorRestarting):
            assert await ref.ask(Echo(number), within=1) == number


async def until_dead(ref: Ref) -> None:
    """Ask until it dies for good."""
    with contextlib.suppress(ActorCrashed, ActorDead):
        for number in range(4):
            await ref.ask(Echo(number), within=1)


async def test_a_boundary_that_no_round_passes_fails_the_campaign(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(Worker(), on_crash=OnCrash.RESTART)
        monkey = ChaosMonkey(system, seed=3, victims=["worker"])
        with pytest.raises(ChaosFailed, match="never hit: worker/after:Never, worker/before:Never") as caught:
            await monkey.run(lambda: echo(ref), kills=10)
    report = caught.value.report
    assert [str(boundary) for boundary in report.never_hit] == ["worker/after:Never", "worker/before:Never"]
    assert set(report.hits) == {Boundary("worker", "before:Echo"), Boundary("worker", "after:Echo")}
    assert "worker/before:Never" in str(report)
    assert "NEVER HIT: no round passed it" in str(report)


async def test_an_expected_point_that_no_round_passes_fails_the_campaign(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(Worker(), on_crash=OnCrash.RESTART)
        monkey = ChaosMonkey(system, seed=3, victims=["worker"], expect=["worker/paid"], spare=["*/*:Never"])
        with pytest.raises(ChaosFailed, match="never hit: worker/paid"):
            await monkey.run(lambda: echo(ref), kills=4)


async def test_a_spared_boundary_is_neither_hit_nor_missed(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor(), on_crash=OnCrash.RESTART)
        monkey = ChaosMonkey(system, seed=3, victims=[ref.name], spare=[*REST, "*/after:Echo"])
        report = await monkey.run(lambda: echo(ref), kills=12)
    assert report.hits == {Boundary(ref.name, "before:Echo"): 12}
    assert {kill.visit for kill in report.kills} == {1, 2, 3, 4}


async def test_a_boundary_that_a_round_cannot_reach_in_time_is_never_hit(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(Worker(), on_crash=OnCrash.RESTART)
        monkey = ChaosMonkey(system, seed=3, victims=["worker"], spare=["*/*:Never"])
        with pytest.raises(ChaosFailed, match="never hit") as caught:
            await monkey.run(lambda: echo(ref), kills=10, most_rounds=2)
    assert caught.value.report.rounds == 2
    assert "NEVER HIT" in str(caught.value)
    assert "no round passed it" not in str(caught.value)


async def test_a_victim_that_does_not_come_back_fails_the_campaign_at_once(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(Worker(), on_crash=OnCrash.STOP)
        monkey = ChaosMonkey(system, seed=3, victims=["worker"], spare=["*/*:Never"])
        began = trio.current_time()
        with pytest.raises(ChaosFailed, match="worker is dead") as caught:
            await monkey.run(lambda: until_dead(ref), kills=5)
        assert trio.current_time() == began
    assert [type(kill) for kill in caught.value.report.kills] == [Kill]


async def test_what_a_check_raises_says_how_to_get_there_again(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(Worker(), on_crash=OnCrash.RESTART)
        monkey = ChaosMonkey(system, seed=41, victims=["worker"], spare=["*/*:Never"])

        async def no_kill_yet() -> None:
            assert not monkey.report().kills, "books do not balance"

        with pytest.raises(AssertionError, match="books do not balance") as caught:
            await monkey.run(lambda: echo(ref), kills=5, check=no_kill_yet)
    assert caught.value.__notes__ == [
        f"chaos: seed 41, round {monkey.report().rounds}, armed: "
        + ", ".join(f"{kill.boundary} at visit {kill.visit}" for kill in monkey.report().kills)
    ]


async def test_kills_that_were_not_its_own_are_not_counted(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor(), on_crash=OnCrash.RESTART)
        failpoints = system.services.failpoints
        failpoints.arm(ref.name, "before:Crash")
        ref.tell(Crash())
        await system.up(ref, 2)
        monkey = ChaosMonkey(system, seed=1, victims=[ref.name], spare=REST)
        report = await monkey.run(lambda: echo(ref), kills=6)
        assert len(system.exits(ref)) == 1 + len(report.kills)
        assert failpoints.enabled  # as it was before


async def test_a_monkey_runs_once(autojump_clock: object) -> None:
    async with actor_system() as system:
        ref = await system.start(Worker(), on_crash=OnCrash.RESTART)
        monkey = ChaosMonkey(system, seed=1, victims=["worker"], spare=["*/*:Never"])
        await monkey.run(lambda: echo(ref), kills=2)
        with pytest.raises(RuntimeError, match="one campaign"):
            await monkey.run(lambda: echo(ref), kills=2)


async def test_a_campaign_needs_victims_that_exist() -> None:
    async with actor_system() as system:
        await system.start(Worker())
        with pytest.raises(UnknownActor, match="worker"):
            ChaosMonkey(system, seed=1, victims=["wroker"])
        with pytest.raises(ValueError, match="needs victims"):
            ChaosMonkey(system, seed=1, victims=[])
