"""Starting: order, needs, the start handshake, and what a failing first start does."""

# a virtual clock works by being asked for

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.child import ExitReason, Restart
from runtime.errors import StartRefused
from runtime.restart_limits import Backoff
from runtime.supervision.supervisor import ChildStartFailed, ChildState, SpecError, Supervisor
from tests.runtime.supervision.misbehaving import Boom, Harness, Misbehaving, Start, settle


async def run(supervisor: Supervisor) -> None:
    """Run it until its own end."""
    await supervisor.run(1)


# S-501
async def test_children_start_after_those_they_need(harness: Harness) -> None:
    specs = [harness.spec("web", needs=("pool",)), harness.spec("log"), harness.spec("pool", needs=("log",))]
    async with harness.running(harness.supervisor(*specs)):
        assert [line for line in harness.journal if line.startswith("up")] == ["up log", "up pool", "up web"]
        harness.journal.clear()
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop web", "stop pool", "stop log"]


# S-516
def test_a_circle_of_needs_is_refused_with_its_path(harness: Harness) -> None:
    specs = [
        harness.spec("x"),
        harness.spec("a", needs=("b",)),
        harness.spec("b", needs=("c",)),
        harness.spec("c", needs=("a",)),
    ]
    with pytest.raises(SpecError, match="a -> b -> c -> a"):
        harness.supervisor(*specs)


# S-516
def test_an_unknown_need_is_refused_with_the_nearest_name(harness: Harness) -> None:
    with pytest.raises(SpecError, match=r"'pool\.mian'.*did you mean 'pool\.main'"):
        harness.supervisor(harness.spec("pool.main"), harness.spec("web", needs=("pool.mian",)))


# S-516
def test_a_name_given_twice_is_refused(harness: Harness) -> None:
    with pytest.raises(SpecError, match="several children are named a"):
        harness.supervisor(harness.spec("a"), harness.spec("b"), harness.spec("a"))


def test_a_spec_whose_child_has_another_name_is_refused(harness: Harness) -> None:
    spec = harness.spec("a")
    harness["a"].name = "b"
    with pytest.raises(SpecError, match="made a child named 'b'"):
        harness.supervisor(spec)


# S-511
async def test_a_start_that_fails_stops_the_started_in_reverse_and_its_error_comes_out(harness: Harness) -> None:
    refused = StartRefused("the port is taken", exit_code=69)
    specs = [harness.spec("a"), harness.spec("b"), harness.spec("c", refused), harness.spec("d")]
    with pytest.raises(StartRefused) as caught:
        await run(harness.supervisor(*specs))
    assert caught.value is refused
    assert harness.incarnations() == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop b", "stop a"]
    assert harness["d"].incarnations == []
    assert harness["c"].reasons == [ExitReason.START_FAILED]


# S-511
async def test_a_failing_first_start_is_not_retried(harness: Harness) -> None:
    with pytest.raises(Boom):
        await run(harness.supervisor(harness.spec("a", Start.FAIL), intensity=100))
    assert harness["a"].incarnations == [1]


async def test_a_start_that_returns_early_fails(harness: Harness) -> None:
    with pytest.raises(ChildStartFailed, match="returned before it reported that it serves"):
        await run(harness.supervisor(harness.spec("a", Start.RETURN)))


# S-513
async def test_a_start_that_hangs_fails_after_its_timeout(harness: Harness, autojump_clock: MockClock) -> None:
    begin = trio.current_time()
    with pytest.raises(ChildStartFailed, match="within 7 s"):
        await run(harness.supervisor(harness.spec("a"), harness.spec("b", Start.HANG, start_timeout=7.0)))
    assert trio.current_time() - begin == 7.0
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


async def test_a_start_that_swallows_its_cancellation_is_left_alone(
    harness: Harness, autojump_clock: MockClock
) -> None:
    spec = harness.spec("b", Start.SWALLOW, start_timeout=7.0, kill_grace=2.0)
    supervisor = harness.supervisor(harness.spec("a"), spec)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_refusal, supervisor)
        await trio.sleep(9.1)
        assert harness["a"].reasons == [ExitReason.SHUTDOWN]
        assert harness["b"].reasons == [ExitReason.UNSTOPPED]
        harness["b"].release()
    assert harness["b"].reasons == [ExitReason.UNSTOPPED]


async def _expect_refusal(supervisor: Supervisor) -> None:
    with pytest.raises(ChildStartFailed):
        await run(supervisor)


# S-514
async def test_a_child_that_declines_is_no_failure(harness: Harness) -> None:
    supervisor = harness.supervisor(
        harness.spec("a", Start.IGNORE),
        harness.spec("b", needs=("a",)),
        harness.spec("c", Start.IGNORE, restart=Restart.TEMPORARY),
    )
    async with harness.running(supervisor):
        states = {info.name: info.state for info in supervisor.which_children()}
        assert states == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert len(harness["a"].finals) == len(harness["c"].finals) == 1


# S-409 S-512
async def test_a_failing_start_after_boot_is_a_failed_attempt(harness: Harness) -> None:
    async with harness.running(harness.supervisor(harness.spec("a"), harness.spec("b"))):
        harness["a"].starts.append(Start.FAIL)
        harness["a"].crash()
        await settle()
        assert harness["a"].reasons == [ExitReason.CRASHED, ExitReason.START_FAILED]


async def test_a_hanging_restart_is_given_up_and_tried_again(harness: Harness, autojump_clock: MockClock) -> None:
    spec = harness.spec("a", start_timeout=3.0, backoff=Backoff(initial=1.0, jitter=0.0))
    async with harness.running(harness.supervisor(spec)):
        harness["a"].starts.append(Start.HANG)
        harness["a"].crash()
        await trio.sleep(4.5)
        assert harness["a"].served == [1, 3]
        assert harness["a"].reasons == [ExitReason.CRASHED, ExitReason.START_FAILED]


async def test_a_crash_in_the_step_that_reports_serving_is_a_crash_and_no_failed_start(harness: Harness) -> None:
    async with harness.running(harness.supervisor(harness.spec("a", Start.SERVE_AND_CRASH), harness.spec("b"))):
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 1}
        assert harness.kinds()[:3] == ["ChildStarted a", "ChildExited a", "ChildRestarting a"]


# S-515
async def test_a_child_waits_for_a_needed_sibling_that_is_on_its_way_up(
    harness: Harness, autojump_clock: MockClock
) -> None:
    pool = harness.spec("pool", backoff=Backoff(initial=4.0, jitter=0.0))
    supervisor = harness.supervisor(pool, harness.spec("web", needs=("pool",)))
    async with harness.running(supervisor):
        harness["pool"].crash()
        await settle()
        harness["pool"].crash()
        harness["web"].crash()
        await trio.sleep(3.9)
        assert harness.incarnations() == {"pool": 2, "web": 1}
        await trio.sleep(0.2)
        assert harness.incarnations() == {"pool": 3, "web": 2}


# S-515
async def test_a_child_does_not_wait_for_a_needed_sibling_that_stays_down(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("pool"), harness.spec("web", needs=("pool",)))
    async with harness.running(supervisor):
        await supervisor.terminate_child("pool")
        harness["web"].crash()
        await settle()
        assert harness.incarnations() == {"pool": 1, "web": 2}


# S-409 S-525
async def test_a_supervisor_can_run_again_and_incarnations_go_on(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    for _ in range(3):
        async with harness.running(supervisor):
            pass
    assert harness["a"].served == [1, 2, 3]


async def test_a_supervisor_runs_once_at_a_time(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        with pytest.raises(RuntimeError, match="running already"):
            await supervisor.run(2)
        assert harness["a"].served == [1]


async def test_a_supervisor_without_children_serves_and_stops(harness: Harness) -> None:
    supervisor = harness.supervisor()
    async with harness.running(supervisor):
        assert supervisor.count_children().specs == 0


async def test_a_request_to_stop_before_the_run_is_obeyed(harness: Harness) -> None:
    from runtime.child import StopCause, StopReason

    supervisor = harness.supervisor(harness.spec("a"))
    supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
    await run(supervisor)
    assert harness["a"].incarnations == []


# S-526
async def test_hooks_that_raise_are_reported_and_harm_nobody(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise Boom("hook")

    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b"))
    for hook in ("on_exit", "on_final", "request_stop"):
        monkeypatch.setattr(Misbehaving, hook, broken)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, 1)
            harness["a"].crash()
            await settle()
            assert harness.incarnations() == {"a": 2, "b": 1}
            for child in harness.children.values():
                child.finish()
            nursery.cancel_scope.cancel()
    assert {event.hook for event in harness.events if event.kind == "ChildHookFailed"} == {  # type: ignore[attr-defined]  # selected by kind
        "on_exit",
        "on_final",
        "request_stop",
    }
