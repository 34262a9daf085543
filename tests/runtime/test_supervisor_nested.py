"""Supervisors as children of supervisors."""

# a virtual clock works by being asked for

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from runtime.backoff import NO_BACKOFF
from runtime.child import Child, ChildSpec, ExitReason, Restart, StopCause, StopReason
from runtime.errors import Fatal, StartRefused
from runtime.supervision_events import SupervisorGaveUp
from runtime.supervisor import ChildrenUnstopped, ChildState, RestartIntensityExceeded, Supervisor, open_ground
from tests.runtime.misbehaving import House, Outcome, Start, Stop, settle

SHUTDOWN = StopReason(StopCause.SHUTDOWN, "asked")


def states(supervisor: Supervisor) -> dict[str, ChildState]:
    return {info.name: info.state for info in supervisor.which_children()}


async def test_the_whole_tree_starts_in_order_and_stops_in_reverse(house: House) -> None:
    inner = house.supervisor(house.spec("b"), house.spec("c"), name="inner")
    top = house.supervisor(house.spec("a"), house.nested(inner), house.spec("d"))
    async with house.running(top):
        assert [line for line in house.journal if line.startswith("up")] == ["up a", "up b", "up c", "up d"]
        house.journal.clear()
    assert [line for line in house.journal if line.startswith("stop")] == ["stop d", "stop c", "stop b", "stop a"]
    assert all(len(child.finals) == 1 for child in house.children.values())


# S-517
async def test_a_nested_give_up_is_an_exit_that_its_supervisor_restarts(house: House) -> None:
    inner = house.supervisor(house.spec("b", backoff=NO_BACKOFF), house.spec("c"), name="inner", intensity=1)
    top = house.supervisor(house.spec("a"), house.nested(inner))
    async with house.running(top):
        for _ in range(2):
            house["b"].crash()
            await settle()
        assert house.incarnations() == {"a": 1, "b": 3, "c": 2}
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.RUNNING}
        assert states(inner) == {"b": ChildState.RUNNING, "c": ChildState.RUNNING}
        (info,) = [info for info in top.which_children() if info.name == "inner"]
        assert info.incarnation == 2
        assert info.last_exit is not None
        assert info.last_exit.reason is ExitReason.SHUTDOWN
        assert isinstance(info.last_exit.error, RestartIntensityExceeded)
        # They were between two lives of their supervisor and not at their end.
        assert house["b"].finals == house["c"].finals == []


# S-517
async def test_a_transient_supervisor_that_gave_up_is_not_restarted(house: House) -> None:
    inner = house.supervisor(house.spec("b"), name="inner", intensity=0)
    top = house.supervisor(house.spec("a"), house.nested(inner, restart=Restart.TRANSIENT))
    async with house.running(top):
        house["b"].crash()
        await settle()
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.DOWN}
        assert house.incarnations() == {"a": 1, "b": 1}
        assert len(house["b"].finals) == 1


# S-517
async def test_giving_up_goes_up_level_by_level(house: House) -> None:
    innermost = house.supervisor(house.spec("c", backoff=NO_BACKOFF), name="innermost", intensity=1)
    inner = house.supervisor(house.nested(innermost, backoff=NO_BACKOFF), name="inner", intensity=1)
    top = house.supervisor(house.spec("a"), house.nested(inner, backoff=NO_BACKOFF), intensity=1)
    crashes = 0
    with pytest.raises(RestartIntensityExceeded, match="supervisor top gave up"):
        async with house.running(top):
            while top.which_children():
                house["c"].crash()
                crashes += 1
                await settle()
    # Two lives of c for each life of the supervisor above it, on three levels.
    assert crashes == 8
    assert house.incarnations() == {"a": 1, "c": 8}
    assert [event.actor for event in house.events_of(SupervisorGaveUp)].count("innermost") == 4


async def test_a_nested_start_that_fails_fails_the_boot_with_its_own_error(house: House) -> None:
    refused = StartRefused("no licence", exit_code=69)
    inner = house.supervisor(house.spec("b"), house.spec("c", refused), name="inner")
    with pytest.raises(StartRefused) as caught:
        await house.supervisor(house.spec("a"), house.nested(inner), house.spec("d")).run(1)
    assert caught.value is refused
    assert house.incarnations() == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert [line for line in house.journal if line.startswith("stop")] == ["stop b", "stop a"]


async def test_a_nested_start_that_fails_after_boot_is_a_failed_attempt(house: House) -> None:
    inner = house.supervisor(house.spec("b"), name="inner", intensity=0)
    top = house.supervisor(house.nested(inner, backoff=NO_BACKOFF), intensity=2)
    async with house.running(top):
        house["b"].starts.append(Start.FAIL)
        house["b"].crash()
        await settle()
        assert house["b"].reasons == [ExitReason.CRASHED, ExitReason.START_FAILED]
        assert house["b"].served == [1, 3]


async def test_killing_a_supervisor_kills_its_children_at_once_and_restarts_it(
    house: House, autojump_clock: MockClock
) -> None:
    innermost = house.supervisor(house.spec("c", stop=Stop.SLOW), name="innermost")
    inner = house.supervisor(house.spec("b", stop=Stop.SLOW), house.nested(innermost), name="inner")
    top = house.supervisor(house.spec("a"), house.nested(inner))
    async with house.running(top):
        begin = trio.current_time()
        top.kill_child("inner", "test")
        await settle()
        assert trio.current_time() == begin
        assert house["b"].reasons == house["c"].reasons == [ExitReason.KILLED]
        assert house.incarnations() == {"a": 1, "b": 2, "c": 2}


# S-519
async def test_a_fatal_error_below_stops_the_whole_tree_in_its_order(house: House) -> None:
    inner = house.supervisor(house.spec("b"), house.spec("c"), name="inner")
    top = house.supervisor(house.spec("a"), house.nested(inner), house.spec("d"))
    with pytest.raises(Fatal, match="disk"):
        async with house.running(top):
            house.journal.clear()
            house["b"].crash(Fatal("the disk is full"))
            await settle()
    assert [line for line in house.journal if line.startswith("stop")] == ["stop d", "stop c", "stop a"]


async def test_a_fatal_error_in_a_nested_boot_comes_out(house: House) -> None:
    inner = house.supervisor(house.spec("b", Fatal("no")), name="inner")
    with pytest.raises(Fatal):
        await house.supervisor(house.spec("a"), house.nested(inner)).run(1)
    assert house["a"].reasons == [ExitReason.SHUTDOWN]


# S-604
async def test_the_budget_is_handed_down(house: House, autojump_clock: MockClock) -> None:
    specs = [house.spec(name, stop=Stop.IGNORE, shutdown=100.0) for name in "bc"]
    inner = house.supervisor(*specs, name="inner")
    top = house.supervisor(house.spec("a"), house.nested(inner), shutdown_budget=30.0)
    begin = trio.current_time()
    async with house.running(top):
        pass
    # 30 s less the kill_grace of inner and of c, which uses all of it; b is cancelled without having been asked.
    assert trio.current_time() - begin == 28.0
    assert house["c"].stop_reasons[0].deadline == begin + 28.0
    assert house["a"].reasons == [ExitReason.SHUTDOWN]


async def test_unstopped_children_below_are_reported_with_their_path(house: House, autojump_clock: MockClock) -> None:
    innermost = house.supervisor(house.spec("c", stop=Stop.SWALLOW), name="innermost")
    inner = house.supervisor(house.nested(innermost), name="inner")
    top = house.supervisor(house.spec("a"), house.nested(inner))
    outcome = Outcome()
    async with open_ground():
        async with trio.open_nursery() as nursery:
            await nursery.start(outcome.collect, top)
            top.request_stop(SHUTDOWN)
        assert [report.name for report in top.unstopped] == ["inner/innermost/c"]
        assert isinstance(outcome.error, ChildrenUnstopped)
        assert house["a"].reasons == [ExitReason.SHUTDOWN]
        house["c"].release()


async def test_a_supervisor_that_left_a_child_behind_is_not_restarted_before_that_is_gone(
    house: House, autojump_clock: MockClock
) -> None:
    inner = house.supervisor(house.spec("b"), house.spec("c", stop=Stop.SWALLOW), name="inner", intensity=0)
    top = house.supervisor(house.spec("a"), house.nested(inner))
    async with house.running(top):
        house["b"].crash()
        await trio.sleep(10.0)
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.UNSTOPPED}
        assert house["b"].parked == house["c"].parked
        assert len(house["c"].parked) == 1
        await trio.sleep(1000.0)
        assert house.incarnations() == {"a": 1, "b": 1, "c": 1}
        house["c"].stop = Stop.OBEY
        house["c"].release()
        await settle()
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.RUNNING}
        assert house.incarnations() == {"a": 1, "b": 2, "c": 2}


async def test_children_of_a_restarted_supervisor_keep_their_identity(house: House) -> None:
    made: list[str] = []

    def make() -> Child:
        made.append("b")
        return house.child("b")

    inner = house.supervisor(ChildSpec("b", make), name="inner")
    top = house.supervisor(house.nested(inner))
    async with house.running(top):
        top.kill_child("inner", "test")
        await settle()
        assert house["b"].served == [1, 2]
        assert made == ["b"]


async def test_deep_nesting_costs_no_recursion(house: House) -> None:
    supervisor = house.supervisor(house.spec("leaf"), name="level 0")
    for level in range(1, 200):
        supervisor = house.supervisor(house.nested(supervisor, start_timeout=math.inf), name=f"level {level}")
    async with house.running(supervisor):
        house["leaf"].crash()
        await settle()
        assert house["leaf"].served == [1, 2]
    assert house["leaf"].reasons == [ExitReason.CRASHED, ExitReason.SHUTDOWN]


async def test_a_transient_supervisor_that_gave_up_stays_down_also_if_it_left_a_child_behind(
    house: House, autojump_clock: MockClock
) -> None:
    inner = house.supervisor(house.spec("b"), house.spec("c", stop=Stop.SWALLOW), name="inner", intensity=0)
    top = house.supervisor(house.spec("a"), house.nested(inner, restart=Restart.TRANSIENT))
    async with house.running(top):
        house["b"].crash()
        await trio.sleep(10.0)
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.UNSTOPPED}
        house["c"].release()
        await settle()
        assert states(top) == {"a": ChildState.RUNNING, "inner": ChildState.DOWN}
        assert house.incarnations() == {"a": 1, "b": 1, "c": 1}
