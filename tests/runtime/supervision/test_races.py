"""Things that happen at the same time: each has one defined outcome."""

# a virtual clock works by being asked for

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from runtime.child import Exit, ExitReason, Restart, StopCause, StopReason, Strategy
from runtime.restart_limits import NO_BACKOFF, Backoff
from runtime.supervision.events import ChildRestarting
from runtime.supervision.supervisor import (
    AdministrationError,
    ChildrenUnstopped,
    ChildStartFailed,
    ChildState,
    RefusalReason,
    Supervisor,
)
from tests.runtime.supervision.misbehaving import Harness, Start, Stop, settle

SHUTDOWN = StopReason(StopCause.SHUTDOWN, "asked")
SLOW_RESTART = Backoff(initial=50.0, jitter=0.0)


def states(supervisor: Supervisor) -> dict[str, ChildState]:
    return {info.name: info.state for info in supervisor.which_children()}


class Caught:
    """The error that a call in the background ended with."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def call(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            await function(*args)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.error = error


# Two crashes in one tick


async def test_two_crashes_in_one_tick_are_two_restarts(harness: Harness) -> None:
    async with harness.running(harness.supervisor(*map(harness.spec, "abc"))):
        harness["a"].crash()
        harness["c"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 1, "c": 2}
        assert len(harness.events_of(ChildRestarting)) == 2


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
@pytest.mark.parametrize("order", ["ac", "ca"])
async def test_two_crashes_of_one_group_in_one_tick_restart_it_once(
    harness: Harness, strategy: Strategy, order: str
) -> None:
    supervisor = harness.supervisor(*map(harness.spec, "abc"), strategy=strategy, intensity=2)
    async with harness.running(supervisor):
        for name in order:
            harness[name].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 2, "c": 2}
        assert harness["a"].reasons == harness["c"].reasons == [ExitReason.CRASHED]


# A crash of a sibling during a group restart


async def test_a_sibling_that_crashes_while_another_is_stopped_joins_the_group(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec("a"), harness.spec("b"), harness.spec("c", stop=Stop.SLOW)]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL, intensity=1)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        assert harness["c"].stop_reasons != []
        harness["b"].crash()
        await trio.sleep(1.1)
        assert harness.incarnations() == {"a": 2, "b": 2, "c": 2}
        assert harness["b"].stop_reasons == []


async def test_a_sibling_that_crashes_while_another_starts_begins_the_group_restart_again(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec(name, backoff=NO_BACKOFF) for name in "abc"]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["b"].starts.append(Start.HANG)
        harness["a"].crash()
        await settle()
        assert states(supervisor) == {
            "a": ChildState.RUNNING,
            "b": ChildState.STARTING,
            "c": ChildState.RESTARTING,
        }
        harness["a"].crash()
        await trio.sleep(5.1)
        assert harness.incarnations() == {"a": 3, "b": 3, "c": 2}
        assert harness["c"].reasons == [ExitReason.SHUTDOWN]


async def test_a_member_terminated_in_a_group_restart_stays_down_and_the_group_goes_on(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec("a", backoff=SLOW_RESTART), harness.spec("b"), harness.spec("c", stop=Stop.SLOW)]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        await supervisor.terminate_child("b")
        await trio.sleep(1.1)
        assert states(supervisor) == {"a": ChildState.RUNNING, "b": ChildState.DOWN, "c": ChildState.RUNNING}
        assert harness.incarnations() == {"a": 2, "b": 1, "c": 2}


async def test_the_child_that_caused_a_group_restart_can_be_terminated_meanwhile(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec("a", backoff=SLOW_RESTART), harness.spec("b")]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        harness["a"].crash()
        await settle()
        await supervisor.terminate_child("a")
        await trio.sleep(51.0)
        assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert harness.incarnations() == {"a": 2, "b": 3}


# Stop while dying


async def test_a_child_terminated_in_the_tick_of_its_crash_is_not_restarted(harness: Harness) -> None:
    supervisor = harness.supervisor(*map(harness.spec, "ab"))
    async with harness.running(supervisor):
        harness["a"].crash()
        await supervisor.terminate_child("a")
        await settle()
        assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert harness["a"].served == [1]
        assert harness["a"].reasons == [ExitReason.CRASHED]


async def test_a_child_terminated_right_after_its_crash_was_decided_never_runs(harness: Harness) -> None:
    supervisor = harness.supervisor(*map(harness.spec, "ab"))
    async with harness.running(supervisor):
        harness["a"].crash()
        while not harness.events_of(ChildRestarting):
            await trio.lowlevel.checkpoint()
        await supervisor.terminate_child("a")
        await settle()
        assert states(supervisor)["a"] is ChildState.DOWN
        # Each incarnation has its one record, whether it came to run or not.
        assert [end.incarnation for end in harness["a"].exits] == list(range(1, len(harness["a"].exits) + 1))
        assert harness["a"].inside == 0


# S-523
async def test_a_shutdown_in_the_tick_of_a_crash_restarts_nothing(harness: Harness) -> None:
    supervisor = harness.supervisor(*map(harness.spec, "ab"))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        harness["a"].crash()
        supervisor.request_stop(SHUTDOWN)
    assert harness.incarnations() == {"a": 1, "b": 1}
    assert harness["a"].reasons == [ExitReason.CRASHED]


async def test_a_crash_while_stopping_is_not_restarted(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.CRASH), harness.spec("b"))
    async with harness.running(supervisor):
        await supervisor.terminate_child("a")
        await settle()
        assert states(supervisor)["a"] is ChildState.DOWN
        assert harness["a"].reasons == [ExitReason.CRASHED]


# Kill


# S-521
async def test_killing_a_stopping_child_ends_the_waiting_and_restarts_nothing(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.IGNORE, shutdown=1000.0), harness.spec("b"))
    async with harness.running(supervisor):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.terminate_child, "a")
            await trio.sleep(5.0)
            begin = trio.current_time()
            supervisor.kill_child("a", "enough")
        assert trio.current_time() == begin
        assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert [(end.reason, end.detail) for end in harness["a"].exits] == [(ExitReason.KILLED, "enough")]


async def test_a_stopping_child_that_survives_its_kill_is_unstopped_right_after_the_grace(
    harness: Harness, autojump_clock: MockClock
) -> None:
    spec = harness.spec("a", stop=Stop.SWALLOW, shutdown=1000.0, kill_grace=2.0)
    supervisor = harness.supervisor(spec, harness.spec("b"))
    caught = Caught()
    async with harness.running(supervisor):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caught.call, supervisor.terminate_child, "a")
            await trio.sleep(5.0)
            supervisor.kill_child("a", "enough")
            begin = trio.current_time()
        assert trio.current_time() - begin == 2.0
        assert isinstance(caught.error, ChildrenUnstopped)
        harness["a"].release()


async def test_killing_a_member_that_a_group_restart_stops_hastens_it_and_costs_no_attempt(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec("a"), harness.spec("b", stop=Stop.IGNORE, shutdown=1000.0)]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL, intensity=1)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        supervisor.kill_child("b", "enough")
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 2}
        supervisor.kill_child("b", "it would not obey at the end either")
        harness["b"].stop = Stop.OBEY


async def test_killing_a_starting_child_is_a_failed_attempt(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), harness.spec("b"))
    async with harness.running(supervisor):
        harness["a"].starts.append(Start.HANG)
        harness["a"].crash()
        await settle()
        supervisor.kill_child("a", "test")
        await settle()
        assert harness["a"].reasons == [ExitReason.CRASHED, ExitReason.KILLED]
        assert harness["a"].served == [1, 3]
        assert len(harness.events_of(ChildRestarting)) == 2


async def test_killing_a_child_in_its_first_start_fails_the_start_of_its_supervisor(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b", Start.HANG))
    caught = Caught()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caught.call, supervisor.run, 1)
        await settle()
        supervisor.kill_child("b", "test")
    assert isinstance(caught.error, ChildStartFailed)
    assert "b did not start: test" in str(caught.error)
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


async def test_killing_a_child_that_start_child_starts_answers_that_call(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    caught = Caught()
    async with harness.running(supervisor):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caught.call, supervisor.start_child, harness.spec("b", Start.HANG))
            await settle()
            supervisor.kill_child("b", "test")
        assert isinstance(caught.error, ChildStartFailed)
        assert states(supervisor) == {"a": ChildState.RUNNING}


async def test_a_child_in_its_backoff_has_nothing_to_kill_and_comes_back(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=SLOW_RESTART))
    async with harness.running(supervisor):
        for _ in range(2):
            harness["a"].crash()
            await settle()
        with pytest.raises(AdministrationError) as caught:
            supervisor.kill_child("a", "test")
        assert caught.value.answer is RefusalReason.RESTARTING
        await trio.sleep(50.1)
        assert harness["a"].served == [1, 2, 3]


async def test_a_kill_in_the_moment_of_a_crash_changes_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = harness.supervisor(harness.spec("a"))

    def kill(end: Exit) -> None:
        harness["a"].exits.append(end)
        if end.incarnation == 1:
            # Its end is recorded, and the supervisor has not looked at it yet.
            assert states(supervisor)["a"] is ChildState.RUNNING
            supervisor.kill_child("a", "test")

    monkeypatch.setattr(harness["a"], "on_exit", kill)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        assert harness["a"].reasons == [ExitReason.CRASHED]
        assert harness["a"].served == [1, 2]


async def test_two_kills_are_one(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        supervisor.kill_child("a", "first")
        supervisor.kill_child("a", "second")
        await settle()
        assert harness["a"].served == [1, 2]
        assert [end.detail for end in harness["a"].exits] == ["first"]


async def test_a_temporary_child_killed_in_a_stop_is_forgotten_once(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.IGNORE, restart=Restart.TEMPORARY))
    async with harness.running(supervisor):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.terminate_child, "a")
            nursery.start_soon(supervisor.terminate_child, "a")
            await settle()
            supervisor.kill_child("a", "enough")
        assert supervisor.which_children() == ()
        assert len(harness["a"].finals) == 1


# During shutdown


# S-523
async def test_nothing_is_started_once_a_shutdown_has_begun(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SLOW), harness.spec("b", stop=Stop.SLOW))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        supervisor.request_stop(SHUTDOWN)
        await trio.sleep(0.5)
        for waiting in (supervisor.start_child(harness.spec("c")), supervisor.restart_child("b")):
            with pytest.raises(AdministrationError) as caught:
                await waiting
            assert caught.value.answer is RefusalReason.SHUTTING_DOWN
        harness["a"].crash()
    assert harness.incarnations() == {"a": 1, "b": 1, "c": 0}


async def test_a_start_child_overtaken_by_a_shutdown_is_answered_and_its_child_stopped(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    caught = Caught()
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        nursery.start_soon(caught.call, supervisor.start_child, harness.spec("b", Start.HANG, start_timeout=60.0))
        await settle()
        begin = trio.current_time()
        supervisor.request_stop(SHUTDOWN)
    assert isinstance(caught.error, AdministrationError)
    assert caught.error.answer is RefusalReason.SHUTTING_DOWN
    assert harness["b"].reasons == [ExitReason.KILLED]
    assert trio.current_time() - begin == 5.0


async def test_a_terminate_child_overtaken_by_a_shutdown_is_answered(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SLOW), harness.spec("b"))
    caught = Caught()
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        nursery.start_soon(caught.call, supervisor.terminate_child, "a")
        await settle()
        supervisor.request_stop(SHUTDOWN)
    assert caught.error is None


@pytest.mark.parametrize("pause", [0.0, 0.5, 1.5])
async def test_a_shutdown_in_the_middle_of_a_group_restart_stops_everybody(
    harness: Harness, autojump_clock: MockClock, pause: float
) -> None:
    specs = [harness.spec("a", backoff=Backoff(initial=3.0)), harness.spec("b", stop=Stop.SLOW), harness.spec("c")]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        harness["a"].crash()
        await trio.sleep(1.1)
        harness["a"].crash()
        await trio.sleep(pause)
        supervisor.request_stop(SHUTDOWN)
    assert harness.incarnations() == {"a": 2, "b": 2, "c": 2}
    assert all(child.inside == 0 and len(child.finals) == 1 for child in harness.children.values())


async def test_a_shutdown_during_a_backoff_does_not_wait_for_it(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=SLOW_RESTART))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        for _ in range(2):
            harness["a"].crash()
            await settle()
        begin = trio.current_time()
        supervisor.request_stop(SHUTDOWN)
    assert trio.current_time() == begin
    assert harness["a"].served == [1, 2]


# Administration against administration


async def test_of_two_restart_child_calls_the_second_is_told_running(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        await supervisor.terminate_child("a")
        first, second = Caught(), Caught()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.call, supervisor.restart_child, "a")
            nursery.start_soon(second.call, supervisor.restart_child, "a")
        (error,) = [caught.error for caught in (first, second) if caught.error is not None]
        assert isinstance(error, AdministrationError)
        assert error.answer is RefusalReason.RUNNING
        assert harness["a"].served == [1, 2]


async def test_terminating_a_child_that_starts_ends_its_start(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    caught = Caught()
    async with harness.running(supervisor):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                caught.call, supervisor.start_child, harness.spec("b", Start.HANG, shutdown=2.0, start_timeout=60.0)
            )
            await settle()
            begin = trio.current_time()
            await supervisor.terminate_child("b")
        assert trio.current_time() - begin == 2.0
        assert isinstance(caught.error, ChildStartFailed)
        assert list(states(supervisor)) == ["a"]


async def test_a_supervisor_stopped_by_its_own_child_ends(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    caught = Caught()
    async with harness.running(supervisor), trio.open_nursery() as nursery:
        # As an actor would that terminates itself: it waits for its own end and is asked to stop meanwhile.
        nursery.start_soon(caught.call, supervisor.terminate_child, "a")
    assert caught.error is None
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]
