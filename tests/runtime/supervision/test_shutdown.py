"""Ending: order, the stop ladder, one budget, cancellation from outside, fatal errors, children that do not stop."""

# a virtual clock works by being asked for

from __future__ import annotations

import asyncio
import math

import pytest
import trio
from trio.testing import MockClock

from runtime.child import ExitReason, StopCause, StopReason, Strategy
from runtime.errors import Fatal
from runtime.supervision.events import ChildEndedLate, ChildParked, ChildUnstopped, SupervisorStopped
from runtime.supervision.supervisor import ChildrenUnstopped, ChildState, Supervisor, open_tree_nursery
from tests.runtime.supervision.misbehaving import Boom, Harness, Outcome, Start, Stop, settle

SHUTDOWN = StopReason(StopCause.SHUTDOWN, "asked")


# S-605
async def test_each_child_is_asked_once_the_one_before_has_ended(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(*[harness.spec(name, stop=Stop.SLOW) for name in "abc"])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        begin = trio.current_time()
        supervisor.request_stop(SHUTDOWN)
        await trio.sleep(0.5)
        assert [len(child.stop_reasons) for child in harness.children.values()] == [0, 0, 1]
    assert trio.current_time() - begin == 3.0
    assert all(child.reasons == [ExitReason.SHUTDOWN] for child in harness.children.values())


# S-602
async def test_a_child_that_ignores_the_request_is_cancelled_after_its_shutdown_time(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b", stop=Stop.IGNORE, shutdown=3.0))
    begin = trio.current_time()
    async with harness.running(supervisor):
        pass
    assert trio.current_time() - begin == 3.0
    (end,) = harness["b"].exits
    assert (end.reason, end.detail) == (ExitReason.KILLED, "it did not stop within 3 s (setting shutdown)")
    assert harness["b"].stop_reasons[0].deadline == begin + 3.0


# S-603
async def test_shutdown_zero_cancels_without_asking(harness: Harness) -> None:
    async with harness.running(harness.supervisor(harness.spec("a", shutdown=0.0))):
        pass
    assert harness["a"].stop_reasons == []
    assert harness["a"].reasons == [ExitReason.KILLED]


# S-602
async def test_a_child_that_swallows_cancellation_is_reported_with_stack_and_left_behind(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(
        harness.spec("a"), harness.spec("b", stop=Stop.SWALLOW, shutdown=3.0, kill_grace=2.0), harness.spec("c")
    )
    harness["b"].message = "Work"
    outcome = Outcome()
    async with open_tree_nursery():
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(outcome.collect, supervisor)
            supervisor.request_stop(SHUTDOWN)
        assert trio.current_time() - begin == 5.0
        assert harness["a"].reasons == harness["c"].reasons == [ExitReason.SHUTDOWN]
        assert harness["b"].reasons == [ExitReason.UNSTOPPED]
        assert isinstance(outcome.error, ChildrenUnstopped)
        assert outcome.error.exit_code == 75
        (report,) = supervisor.unstopped
        assert (report.name, report.incarnation, report.message, report.waited) == ("b", 1, "Work", 5.0)
        assert "_swallow" in report.stack
        (event,) = harness.events_of(ChildUnstopped)
        assert event.stack == report.stack
        assert [event.unstopped for event in harness.events_of(SupervisorStopped)] == [("b",)]
        harness["b"].release()
    assert harness["b"].reasons == [ExitReason.UNSTOPPED]


async def test_without_a_ground_of_its_own_the_root_waits_for_what_it_left_behind(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SWALLOW))
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        await nursery.start(outcome.collect, supervisor)
        supervisor.request_stop(SHUTDOWN)
        await trio.sleep(1000.0)
        assert not outcome.ended.is_set()
        harness["a"].release()
    assert isinstance(outcome.error, ChildrenUnstopped)


# S-604
async def test_one_absolute_budget_covers_all_children(harness: Harness, autojump_clock: MockClock) -> None:
    specs = [harness.spec(name, stop=Stop.IGNORE, shutdown=10.0, kill_grace=1.0) for name in "abcd"]
    supervisor = harness.supervisor(*specs, shutdown_budget=15.0)
    begin = trio.current_time()
    async with harness.running(supervisor):
        pass
    assert trio.current_time() - begin == 14.0
    assert all(child.reasons == [ExitReason.KILLED] for child in harness.children.values())
    assert harness["c"].exits[0].detail == "it did not stop within 4 s (setting shutdown)"
    assert harness["b"].exits[0].detail == "the test is over; there is no time to ask it"


# S-604
async def test_a_second_request_shortens(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(*[harness.spec(name, stop=Stop.IGNORE, shutdown=100.0) for name in "ab"])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        begin = trio.current_time()
        supervisor.request_stop(SHUTDOWN)
        await trio.sleep(5.0)
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN, "hurry", trio.current_time() + 3.0))
    assert trio.current_time() - begin == 7.0
    asked = [[reason.deadline - begin for reason in harness[name].stop_reasons] for name in "ab"]
    assert asked == [[], [100.0, 7.0]], "who is asked already is told of the new deadline"


# S-607
async def test_cancellation_from_outside_becomes_an_ordered_shutdown(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(*[harness.spec(name, stop=Stop.SLOW) for name in "abc"])
    begin = trio.current_time()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, 1)
            harness.journal.clear()
            scope.cancel()
    assert scope.cancelled_caught
    assert trio.current_time() - begin == 3.0
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop c", "stop b", "stop a"]
    assert all(child.reasons == [ExitReason.SHUTDOWN] for child in harness.children.values())


async def test_cancellation_during_boot_stops_what_has_started(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b", Start.HANG, shutdown=0.0), harness.spec("c"))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, 1)
            await settle()
            scope.cancel()
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]
    assert harness["b"].reasons == [ExitReason.KILLED]
    assert harness["c"].incarnations == []


# S-519
async def test_a_fatal_error_stops_everything_in_order_and_comes_out(harness: Harness) -> None:
    fatal = Fatal("the disk is full", exit_code=74)
    supervisor = harness.supervisor(*map(harness.spec, "abc"), intensity=100)
    with pytest.raises(Fatal) as caught:
        async with harness.running(supervisor):
            harness.journal.clear()
            harness["b"].crash(fatal)
            await settle()
    assert caught.value is fatal
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop c", "stop a"]
    assert harness.incarnations() == {"a": 1, "b": 1, "c": 1}


async def test_a_fatal_error_among_others_in_a_group_is_found(harness: Harness) -> None:
    fatal = Fatal("the disk is full")
    with pytest.raises(Fatal):
        async with harness.running(harness.supervisor(harness.spec("a"))):
            harness["a"].crash(ExceptionGroup("two", [Boom("x"), fatal]))
            await settle()


# S-519
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
async def test_what_is_no_exception_is_the_crash_of_that_child_alone(harness: Harness, error: BaseException) -> None:
    async with harness.running(harness.supervisor(*map(harness.spec, "ab"))):
        harness["a"].crash(error)
        await settle()
        assert harness["a"].reasons == [ExitReason.CRASHED]
        assert harness.incarnations() == {"a": 2, "b": 1}


async def test_a_fatal_error_during_boot_stops_what_has_started(harness: Harness) -> None:
    with pytest.raises(Fatal):
        await harness.supervisor(harness.spec("a"), harness.spec("b", Fatal("no"))).run(1)
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


async def test_a_fatal_error_while_stopping_comes_out_too(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b", stop=Stop.IGNORE))
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        await nursery.start(outcome.collect, supervisor)
        supervisor.request_stop(SHUTDOWN)
        await settle()
        harness["b"].crash(Fatal("at the end"))
    assert isinstance(outcome.error, Fatal)
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


# S-409 S-606
async def test_an_unstopped_child_is_never_restarted_beside_itself(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SWALLOW, kill_grace=2.0), harness.spec("b"))
    async with harness.running(supervisor):
        supervisor.kill_child("a", "stuck")
        await trio.sleep(2.1)
        info, other = supervisor.which_children()
        assert (info.state, other.state) == (ChildState.UNSTOPPED, ChildState.RUNNING)
        assert len(harness["a"].parked) == 1
        assert [event.actor for event in harness.events_of(ChildParked)] == ["a"]
        await trio.sleep(1000.0)
        assert harness.incarnations() == {"a": 1, "b": 1}
        # Once its task is gone nothing is in the way any more.
        harness["a"].stop = Stop.OBEY
        harness["a"].release()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 1}
        assert [event.incarnation for event in harness.events_of(ChildEndedLate)] == [1]
        assert supervisor.unstopped == ()
    assert harness["a"].reasons == [ExitReason.UNSTOPPED, ExitReason.SHUTDOWN]


# S-606
async def test_an_unstopped_sibling_does_not_hold_up_its_group(harness: Harness, autojump_clock: MockClock) -> None:
    specs = [harness.spec("a"), harness.spec("b", stop=Stop.SWALLOW, shutdown=1.0), harness.spec("c")]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["a"].crash()
        await trio.sleep(2.1)
        assert harness.incarnations() == {"a": 2, "b": 1, "c": 2}
        harness["b"].stop = Stop.OBEY
        harness["b"].release()
        await settle()
        # Its late end is an end like any other: the group is restarted with it.
        assert harness.incarnations() == {"a": 3, "b": 2, "c": 3}


async def test_a_terminated_child_that_ends_late_stays_down(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SWALLOW), harness.spec("b"))
    async with harness.running(supervisor):
        with pytest.raises(ChildrenUnstopped, match=r"a \(last message none, waited 6\.0 s\)"):
            await supervisor.terminate_child("a")
        harness["a"].release()
        await settle()
        assert [info.state for info in supervisor.which_children()] == [ChildState.DOWN, ChildState.RUNNING]
        harness["a"].stop = Stop.OBEY
        assert await supervisor.restart_child("a") == 2


async def test_an_unstopped_child_that_is_left_at_shutdown_is_in_the_result(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SWALLOW), harness.spec("b"))
    outcome = Outcome()
    async with open_tree_nursery():
        async with trio.open_nursery() as nursery:
            await nursery.start(outcome.collect, supervisor)
            supervisor.kill_child("a", "stuck")
            await trio.sleep(5.0)
            supervisor.request_stop(SHUTDOWN)
        assert [report.name for report in supervisor.unstopped] == ["a"]
        harness["a"].release()
    assert isinstance(outcome.error, ChildrenUnstopped)


async def test_a_bug_in_the_control_loop_takes_the_children_down_with_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor: Supervisor = harness.supervisor(*map(harness.spec, "ab"))
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        await nursery.start(outcome.collect, supervisor)

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("bug")

        monkeypatch.setattr("runtime.supervision.outcome.decide", broken)
        harness["a"].crash()
    assert isinstance(outcome.error, ZeroDivisionError)
    assert harness["b"].reasons == [ExitReason.KILLED]
    assert harness["b"].inside == 0


async def test_the_deadline_of_an_endless_shutdown_is_the_budget(harness: Harness, autojump_clock: MockClock) -> None:
    spec = harness.spec("a", stop=Stop.IGNORE, shutdown=math.inf, kill_grace=1.0)
    begin = trio.current_time()
    async with harness.running(harness.supervisor(spec, shutdown_budget=20.0)):
        pass
    assert trio.current_time() - begin == 19.0
    assert harness["a"].stop_reasons[0].deadline == begin + 19.0


async def test_each_outermost_supervisor_on_one_ground_gets_its_own_fatal_errors(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b"))
    async with open_tree_nursery():
        for life in (1, 2):
            outcome = Outcome()
            async with trio.open_nursery() as nursery:
                await nursery.start(outcome.collect, supervisor)
                harness["a"].crash(Fatal(f"life {life}"))
            assert str(outcome.error) == f"life {life}"
    assert harness["b"].reasons == [ExitReason.SHUTDOWN] * 2
