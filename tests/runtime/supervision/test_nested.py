"""Supervisors as children of supervisors."""

# a virtual clock works by being asked for

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from runtime.child import Child, ChildSpec, ExitReason, Restart, StopCause, StopReason
from runtime.errors import Fatal, StartRefused
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.events import SupervisorGaveUp
from runtime.supervision.supervisor import (
    ChildrenUnstopped,
    ChildState,
    RestartIntensityExceeded,
    Supervisor,
    open_tree_nursery,
)
from tests.runtime.supervision.misbehaving import Harness, Outcome, Start, Stop, settle

SHUTDOWN = StopReason(StopCause.SHUTDOWN, "asked")


def states(supervisor: Supervisor) -> dict[str, ChildState]:
    return {info.name: info.state for info in supervisor.which_children()}


async def test_the_whole_tree_starts_in_order_and_stops_in_reverse(harness: Harness) -> None:
    inner = harness.supervisor(harness.spec("b"), harness.spec("c"), name="inner")
    top = harness.supervisor(harness.spec("a"), harness.nested(inner), harness.spec("d"))
    async with harness.running(top):
        assert [line for line in harness.journal if line.startswith("up")] == ["up a", "up b", "up c", "up d"]
        harness.journal.clear()
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop d", "stop c", "stop b", "stop a"]
    assert all(len(child.finals) == 1 for child in harness.children.values())


# S-517
async def test_a_nested_give_up_is_an_exit_that_its_supervisor_restarts(harness: Harness) -> None:
    inner = harness.supervisor(harness.spec("b", backoff=NO_BACKOFF), harness.spec("c"), name="inner", intensity=1)
    top = harness.supervisor(harness.spec("a"), harness.nested(inner))
    async with harness.running(top):
        for _ in range(2):
            harness["b"].crash()
            await settle()
        assert harness.incarnations() == {"a": 1, "b": 3, "c": 2}
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.RUNNING}
        assert states(inner) == {"b": ChildState.RUNNING, "c": ChildState.RUNNING}
        (info,) = [info for info in top.which_children() if info.name == "inner"]
        assert info.incarnation == 2
        assert info.last_exit is not None
        assert info.last_exit.reason is ExitReason.SHUTDOWN
        assert isinstance(info.last_exit.error, RestartIntensityExceeded)
        # They were between two lives of their supervisor and not at their end.
        assert harness["b"].finals == harness["c"].finals == []


# S-517
async def test_a_transient_supervisor_that_gave_up_is_not_restarted(harness: Harness) -> None:
    inner = harness.supervisor(harness.spec("b"), name="inner", intensity=0)
    top = harness.supervisor(harness.spec("a"), harness.nested(inner, restart=Restart.TRANSIENT))
    async with harness.running(top):
        harness["b"].crash()
        await settle()
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.DOWN}
        assert harness.incarnations() == {"a": 1, "b": 1}
        assert len(harness["b"].finals) == 1


# S-517
async def test_giving_up_goes_up_level_by_level(harness: Harness) -> None:
    innermost = harness.supervisor(harness.spec("c", backoff=NO_BACKOFF), name="innermost", intensity=1)
    inner = harness.supervisor(harness.nested(innermost, backoff=NO_BACKOFF), name="inner", intensity=1)
    top = harness.supervisor(harness.spec("a"), harness.nested(inner, backoff=NO_BACKOFF), intensity=1)
    crashes = 0
    with pytest.raises(RestartIntensityExceeded, match="supervisor top gave up"):
        async with harness.running(top):
            while top.which_children():
                harness["c"].crash()
                crashes += 1
                await settle()
    # Two lives of c for each life of the supervisor above it, on three levels.
    assert crashes == 8
    assert harness.incarnations() == {"a": 1, "c": 8}
    assert [event.actor for event in harness.events_of(SupervisorGaveUp)].count("innermost") == 4


async def test_a_nested_start_that_fails_fails_the_boot_with_its_own_error(harness: Harness) -> None:
    refused = StartRefused("no licence", exit_code=69)
    inner = harness.supervisor(harness.spec("b"), harness.spec("c", refused), name="inner")
    with pytest.raises(StartRefused) as caught:
        await harness.supervisor(harness.spec("a"), harness.nested(inner), harness.spec("d")).run(1)
    assert caught.value is refused
    assert harness.incarnations() == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop b", "stop a"]


async def test_a_nested_start_that_fails_after_boot_is_a_failed_attempt(harness: Harness) -> None:
    inner = harness.supervisor(harness.spec("b"), name="inner", intensity=0)
    top = harness.supervisor(harness.nested(inner, backoff=NO_BACKOFF), intensity=2)
    async with harness.running(top):
        harness["b"].starts.append(Start.FAIL)
        harness["b"].crash()
        await settle()
        assert harness["b"].reasons == [ExitReason.CRASHED, ExitReason.START_FAILED]
        assert harness["b"].served == [1, 3]


async def test_killing_a_supervisor_kills_its_children_at_once_and_restarts_it(
    harness: Harness, autojump_clock: MockClock
) -> None:
    innermost = harness.supervisor(harness.spec("c", stop=Stop.SLOW), name="innermost")
    inner = harness.supervisor(harness.spec("b", stop=Stop.SLOW), harness.nested(innermost), name="inner")
    top = harness.supervisor(harness.spec("a"), harness.nested(inner))
    async with harness.running(top):
        begin = trio.current_time()
        top.kill_child("inner", "test")
        await settle()
        assert trio.current_time() == begin
        assert harness["b"].reasons == harness["c"].reasons == [ExitReason.KILLED]
        assert harness.incarnations() == {"a": 1, "b": 2, "c": 2}


# S-519
async def test_a_fatal_error_below_stops_the_whole_tree_in_its_order(harness: Harness) -> None:
    inner = harness.supervisor(harness.spec("b"), harness.spec("c"), name="inner")
    top = harness.supervisor(harness.spec("a"), harness.nested(inner), harness.spec("d"))
    with pytest.raises(Fatal, match="disk"):
        async with harness.running(top):
            harness.journal.clear()
            harness["b"].crash(Fatal("the disk is full"))
            await settle()
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop d", "stop c", "stop a"]


async def test_a_fatal_error_in_a_nested_boot_comes_out(harness: Harness) -> None:
    inner = harness.supervisor(harness.spec("b", Fatal("no")), name="inner")
    with pytest.raises(Fatal):
        await harness.supervisor(harness.spec("a"), harness.nested(inner)).run(1)
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


# S-604
async def test_the_budget_is_handed_down(harness: Harness, autojump_clock: MockClock) -> None:
    specs = [harness.spec(name, stop=Stop.IGNORE, shutdown=100.0) for name in "bc"]
    inner = harness.supervisor(*specs, name="inner")
    top = harness.supervisor(harness.spec("a"), harness.nested(inner), shutdown_budget=30.0)
    begin = trio.current_time()
    async with harness.running(top):
        pass
    # 30 s less the kill_grace of inner and of c, which uses all of it; b is cancelled without having been asked.
    assert trio.current_time() - begin == 28.0
    assert harness["c"].stop_reasons[0].deadline == begin + 28.0
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


async def test_unstopped_children_below_are_reported_with_their_path(
    harness: Harness, autojump_clock: MockClock
) -> None:
    innermost = harness.supervisor(harness.spec("c", stop=Stop.SWALLOW), name="innermost")
    inner = harness.supervisor(harness.nested(innermost), name="inner")
    top = harness.supervisor(harness.spec("a"), harness.nested(inner))
    outcome = Outcome()
    async with open_tree_nursery():
        async with trio.open_nursery() as nursery:
            await nursery.start(outcome.collect, top)
            top.request_stop(SHUTDOWN)
        assert [report.name for report in top.unstopped] == ["inner/innermost/c"]
        assert isinstance(outcome.error, ChildrenUnstopped)
        assert harness["a"].reasons == [ExitReason.SHUTDOWN]
        harness["c"].release()


async def test_a_supervisor_that_left_a_child_behind_is_not_restarted_before_that_is_gone(
    harness: Harness, autojump_clock: MockClock
) -> None:
    inner = harness.supervisor(harness.spec("b"), harness.spec("c", stop=Stop.SWALLOW), name="inner", intensity=0)
    top = harness.supervisor(harness.spec("a"), harness.nested(inner))
    async with harness.running(top):
        harness["b"].crash()
        await trio.sleep(10.0)
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.UNSTOPPED}
        assert harness["b"].parked == harness["c"].parked
        assert len(harness["c"].parked) == 1
        await trio.sleep(1000.0)
        assert harness.incarnations() == {"a": 1, "b": 1, "c": 1}
        harness["c"].stop = Stop.OBEY
        harness["c"].release()
        await settle()
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.RUNNING}
        assert harness.incarnations() == {"a": 1, "b": 2, "c": 2}


async def test_children_of_a_restarted_supervisor_keep_their_identity(harness: Harness) -> None:
    made: list[str] = []

    def make() -> Child:
        made.append("b")
        return harness.child("b")

    inner = harness.supervisor(ChildSpec("b", make), name="inner")
    top = harness.supervisor(harness.nested(inner))
    async with harness.running(top):
        top.kill_child("inner", "test")
        await settle()
        assert harness["b"].served == [1, 2]
        assert made == ["b"]


async def test_deep_nesting_costs_no_recursion(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("leaf"), name="level 0")
    for level in range(1, 200):
        supervisor = harness.supervisor(harness.nested(supervisor, start_timeout=math.inf), name=f"level {level}")
    async with harness.running(supervisor):
        harness["leaf"].crash()
        await settle()
        assert harness["leaf"].served == [1, 2]
    assert harness["leaf"].reasons == [ExitReason.CRASHED, ExitReason.SHUTDOWN]


async def test_a_transient_supervisor_that_gave_up_stays_down_even_with_a_child_left_over(
    harness: Harness, autojump_clock: MockClock
) -> None:
    inner = harness.supervisor(harness.spec("b"), harness.spec("c", stop=Stop.SWALLOW), name="inner", intensity=0)
    top = harness.supervisor(harness.spec("a"), harness.nested(inner, restart=Restart.TRANSIENT))
    async with harness.running(top):
        harness["b"].crash()
        await trio.sleep(10.0)
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.UNSTOPPED}
        harness["c"].release()
        await settle()
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.DOWN}
        assert harness.incarnations() == {"a": 1, "b": 1, "c": 1}
