"""which, count, start, terminate, restart, delete, kill: OTP's answers, at once, whatever the children are doing."""

# a virtual clock works by being asked for

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from runtime.child import ExitReason, GiveUp, Restart, StopCause, Strategy
from runtime.restart_limits import Backoff
from runtime.supervision.supervisor import (
    AdministrationError,
    ChildCounts,
    ChildrenUnstopped,
    ChildStartFailed,
    ChildState,
    RefusalReason,
    SpecError,
    Supervisor,
)
from tests.runtime.supervision.misbehaving import Boom, Harness, Start, Stop, settle

SLOW_RESTART = Backoff(initial=100.0, jitter=0.0)


def states(supervisor: Supervisor) -> dict[str, ChildState]:
    return {info.name: info.state for info in supervisor.which_children()}


async def answer_of(call: Callable[[], object]) -> RefusalReason:
    """The refusal of a call that must not have to wait."""
    with pytest.raises(AdministrationError) as caught:
        result = call()
        if isinstance(result, Awaitable):
            with trio.fail_after(0.0):
                await result
    return caught.value.answer


async def put_into(state: ChildState, supervisor: Supervisor, harness: Harness) -> None:
    """Bring the child "a" into a state; the clock is virtual and does not have to move."""
    a = harness["a"]
    match state:
        case ChildState.RESTARTING:
            a.crash()
            await settle()
            a.crash()
        case ChildState.STARTING:
            a.starts.append(Start.HANG)
            a.crash()
        case ChildState.STOPPING:
            supervisor.kill_child("a", "test") if a.stop is Stop.SWALLOW else None
        case ChildState.DOWN:
            await supervisor.terminate_child("a")
        case ChildState.PARKED:
            for _ in range(3):
                a.starts.append(Start.FAIL)
            a.crash()
    await settle()
    assert states(supervisor)["a"] is state


@pytest.mark.parametrize(
    ("state", "start", "restart", "delete", "kill"),
    [
        (ChildState.RUNNING, RefusalReason.ALREADY_STARTED, RefusalReason.RUNNING, RefusalReason.RUNNING, None),
        (ChildState.STARTING, RefusalReason.ALREADY_STARTED, RefusalReason.RESTARTING, RefusalReason.RESTARTING, None),
        (ChildState.STOPPING, RefusalReason.ALREADY_STARTED, RefusalReason.RUNNING, RefusalReason.RUNNING, None),
        (
            ChildState.RESTARTING,
            RefusalReason.ALREADY_STARTED,
            RefusalReason.RESTARTING,
            RefusalReason.RESTARTING,
            RefusalReason.RESTARTING,
        ),
        (ChildState.DOWN, RefusalReason.ALREADY_PRESENT, None, None, RefusalReason.NOT_RUNNING),
        (ChildState.PARKED, RefusalReason.ALREADY_PRESENT, None, None, RefusalReason.NOT_RUNNING),
    ],
)
async def test_each_state_has_its_answers(
    harness: Harness,
    autojump_clock: MockClock,
    state: ChildState,
    start: RefusalReason,
    restart: RefusalReason | None,
    delete: RefusalReason | None,
    kill: RefusalReason | None,
) -> None:
    stop = Stop.SWALLOW if state is ChildState.STOPPING else Stop.OBEY
    give_up = GiveUp.PARK if state is ChildState.PARKED else GiveUp.ESCALATE
    backoff = Backoff(initial=0.0) if state is ChildState.PARKED else SLOW_RESTART
    spec = harness.spec("a", stop=stop, give_up=give_up, backoff=backoff, kill_grace=1000.0)
    supervisor = harness.supervisor(spec, harness.spec("b"), intensity=2)
    async with harness.running(supervisor):
        await put_into(state, supervisor, harness)
        assert await answer_of(lambda: supervisor.start_child(spec)) is start
        if restart is not None:
            assert await answer_of(lambda: supervisor.restart_child("a")) is restart
        if delete is not None:
            assert await answer_of(lambda: supervisor.delete_child("a")) is delete
        if kill is not None:
            assert await answer_of(lambda: supervisor.kill_child("a", "test")) is kill
        assert states(supervisor)["a"] is state
        assert harness.incarnations()["b"] == 1
        harness["a"].stop = Stop.OBEY
        harness["a"].release()


async def test_unknown_names_are_not_found_and_the_nearest_is_named(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("worker"))
    async with harness.running(supervisor):
        calls: list[Callable[[], object]] = [
            lambda: supervisor.restart_child("wroker"),
            lambda: supervisor.terminate_child("wroker"),
            lambda: supervisor.delete_child("wroker"),
            lambda: supervisor.kill_child("wroker", "test"),
        ]
        for call in calls:
            assert await answer_of(call) is RefusalReason.NOT_FOUND
        with pytest.raises(AdministrationError, match="did you mean worker"):
            supervisor.delete_child("wroker")


async def test_which_and_count_say_what_there_is(harness: Harness) -> None:
    inner = harness.supervisor(name="inner")
    supervisor = harness.supervisor(
        harness.spec("a", significant=False, restart=Restart.TRANSIENT), harness.nested(inner), harness.spec("c")
    )
    async with harness.running(supervisor):
        await supervisor.terminate_child("c")
        infos = supervisor.which_children()
        assert [(info.name, info.kind, info.incarnation) for info in infos] == [
            ("a", "worker", 1),
            ("inner", "supervisor", 1),
            ("c", "worker", 1),
        ]
        assert infos[0].restart is Restart.TRANSIENT
        assert infos[2].last_exit is not None
        assert infos[2].last_exit.reason is ExitReason.SHUTDOWN
        assert supervisor.count_children() == ChildCounts(specs=3, active=2, supervisors=1, workers=2)
    assert supervisor.count_children() == ChildCounts(0, 0, 0, 0)
    assert supervisor.which_children() == ()


async def test_a_started_child_is_the_last_and_is_supervised_like_the_others(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), strategy=Strategy.REST_FOR_ONE)
    async with harness.running(supervisor):
        assert await supervisor.start_child(harness.spec("b")) == 1
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 2}
        harness.journal.clear()
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop b", "stop a"]
    assert len(harness["b"].finals) == 1


async def test_a_started_child_is_gone_when_its_supervisor_runs_again(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        await supervisor.start_child(harness.spec("b"))
    async with harness.running(supervisor):
        assert list(states(supervisor)) == ["a"]


async def test_a_child_whose_start_fails_is_not_kept(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), intensity=0)
    async with harness.running(supervisor):
        with pytest.raises(ChildStartFailed, match="b did not start: Boom: b does not start") as caught:
            await supervisor.start_child(harness.spec("b", Start.FAIL))
        assert isinstance(caught.value.__cause__, Boom)
        assert states(supervisor) == {"a": ChildState.RUNNING}
        assert await supervisor.start_child(harness.spec("b")) == 2


async def test_a_child_that_declines_is_kept_unless_temporary(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        assert await supervisor.start_child(harness.spec("b", Start.IGNORE)) is None
        assert await supervisor.start_child(harness.spec("c", Start.IGNORE, restart=Restart.TEMPORARY)) is None
        assert states(supervisor) == {"a": ChildState.RUNNING, "b": ChildState.DOWN}
        assert await supervisor.restart_child("b") == 2


async def test_specs_that_contradict_the_supervisor_are_refused(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        for spec in (
            harness.spec("b", needs=("nobody",)),
            harness.spec("b", give_up=GiveUp.PARK),
            harness.spec("b", restart=Restart.TRANSIENT, significant=True),
        ):
            with pytest.raises(SpecError):
                await supervisor.start_child(spec)
        assert harness["b"].incarnations == []


async def test_a_caller_that_loses_patience_does_not_stop_the_start(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    harness.child("b", Start.HANG)
    async with harness.running(supervisor):
        with trio.move_on_after(1.0):
            await supervisor.start_child(harness.spec("b", start_timeout=5.0))
        assert states(supervisor)["b"] is ChildState.STARTING
        await trio.sleep(4.1)
        assert list(states(supervisor)) == ["a"]


# S-520
async def test_everything_is_answered_while_children_hang_in_their_start_and_stop(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec("starting"), harness.spec("stopping", stop=Stop.IGNORE, shutdown=1000.0), harness.spec("c")]
    supervisor = harness.supervisor(*specs)
    async with harness.running(supervisor), trio.open_nursery() as nursery:
        harness["starting"].starts.append(Start.HANG)
        harness["starting"].crash()
        nursery.start_soon(supervisor.terminate_child, "stopping")
        await settle()
        begin = trio.current_time()
        assert states(supervisor) == {
            "starting": ChildState.STARTING,
            "stopping": ChildState.STOPPING,
            "c": ChildState.RUNNING,
        }
        assert supervisor.count_children().active == 2
        assert await supervisor.start_child(harness.spec("d")) == 1
        await supervisor.terminate_child("c")
        assert await supervisor.restart_child("c") == 2
        await supervisor.terminate_child("d")
        supervisor.delete_child("d")
        assert trio.current_time() == begin
        supervisor.kill_child("stopping", "enough")


# S-522
async def test_a_terminated_child_stays_down_and_can_be_restarted_or_deleted(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b"))
    async with harness.running(supervisor):
        await supervisor.terminate_child("a")
        assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert harness["a"].stop_reasons[0].cause is StopCause.TERMINATED
        assert harness["a"].finals == ["terminated"]
        await supervisor.terminate_child("a")
        assert await supervisor.restart_child("a") == 2
        await supervisor.terminate_child("a")
        supervisor.delete_child("a")
        assert states(supervisor) == {"b": ChildState.RUNNING}
        assert harness.incarnations() == {"a": 2, "b": 1}


async def test_a_terminated_temporary_child_is_forgotten(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", restart=Restart.TEMPORARY))
    async with harness.running(supervisor):
        await supervisor.terminate_child("a")
        assert states(supervisor) == {}


async def test_a_restart_that_fails_leaves_the_child_down(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b"), intensity=0)
    async with harness.running(supervisor):
        await supervisor.terminate_child("a")
        harness["a"].starts.append(Start.FAIL)
        with pytest.raises(ChildStartFailed):
            await supervisor.restart_child("a")
        assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert await supervisor.restart_child("a") == 3


# S-522
async def test_terminating_calls_off_a_pending_restart(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=SLOW_RESTART), harness.spec("b"))
    async with harness.running(supervisor):
        await put_into(ChildState.RESTARTING, supervisor, harness)
        await supervisor.terminate_child("a")
        await trio.sleep(1000.0)
        assert states(supervisor)["a"] is ChildState.DOWN
        assert harness.incarnations() == {"a": 2, "b": 1}
        assert len(harness["a"].finals) == 1


async def test_terminating_waits_until_the_child_is_down(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SLOW))
    async with harness.running(supervisor):
        begin = trio.current_time()
        await supervisor.terminate_child("a")
        assert trio.current_time() - begin == 1.0
        assert harness["a"].inside == 0


async def test_an_unstopped_child_can_not_be_restarted_or_deleted(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", stop=Stop.SWALLOW))
    async with harness.running(supervisor):
        supervisor.kill_child("a", "stuck")
        await trio.sleep(2.0)
        assert await answer_of(lambda: supervisor.restart_child("a")) is RefusalReason.RUNNING
        assert await answer_of(lambda: supervisor.delete_child("a")) is RefusalReason.RUNNING
        assert await answer_of(lambda: supervisor.start_child(harness.spec("a", stop=Stop.SWALLOW))) is (
            RefusalReason.ALREADY_STARTED
        )
        supervisor.kill_child("a", "again")
        with pytest.raises(ChildrenUnstopped):
            await supervisor.terminate_child("a")
        harness["a"].release()
        await settle()
        assert states(supervisor) == {"a": ChildState.DOWN}


async def test_nothing_can_be_asked_of_a_supervisor_that_is_down(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    assert await answer_of(lambda: supervisor.restart_child("a")) is RefusalReason.NOT_RUNNING
    assert await answer_of(lambda: supervisor.start_child(harness.spec("b"))) is RefusalReason.NOT_RUNNING
