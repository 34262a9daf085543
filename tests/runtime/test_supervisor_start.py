"""Starting: order, needs, the start handshake, and what a failing first start does."""

# a virtual clock works by being asked for

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.backoff import Backoff
from runtime.child import ExitReason, Restart
from runtime.errors import StartRefused
from runtime.supervisor import ChildStartFailed, ChildState, SpecError, Supervisor
from tests.runtime.misbehaving import Boom, House, Misbehaving, Start, settle


async def run(supervisor: Supervisor) -> None:
    """Run it until its own end."""
    await supervisor.run(1)


# S-501
async def test_children_start_after_those_they_need(house: House) -> None:
    specs = [house.spec("web", needs=("pool",)), house.spec("log"), house.spec("pool", needs=("log",))]
    async with house.running(house.supervisor(*specs)):
        assert [line for line in house.journal if line.startswith("up")] == ["up log", "up pool", "up web"]
        house.journal.clear()
    assert [line for line in house.journal if line.startswith("stop")] == ["stop web", "stop pool", "stop log"]


# S-516
def test_a_circle_of_needs_is_refused_with_its_path(house: House) -> None:
    specs = [
        house.spec("x"),
        house.spec("a", needs=("b",)),
        house.spec("b", needs=("c",)),
        house.spec("c", needs=("a",)),
    ]
    with pytest.raises(SpecError, match="a -> b -> c -> a"):
        house.supervisor(*specs)


# S-516
def test_an_unknown_need_is_refused_with_the_nearest_name(house: House) -> None:
    with pytest.raises(SpecError, match=r"'pool\.mian'.*did you mean 'pool\.main'"):
        house.supervisor(house.spec("pool.main"), house.spec("web", needs=("pool.mian",)))


# S-516
def test_a_name_given_twice_is_refused(house: House) -> None:
    with pytest.raises(SpecError, match="several children are named a"):
        house.supervisor(house.spec("a"), house.spec("b"), house.spec("a"))


def test_a_spec_whose_child_has_another_name_is_refused(house: House) -> None:
    spec = house.spec("a")
    house["a"].name = "b"
    with pytest.raises(SpecError, match="made a child named 'b'"):
        house.supervisor(spec)


# S-511
async def test_a_start_that_fails_stops_the_started_ones_in_reverse_and_its_error_comes_out(house: House) -> None:
    refused = StartRefused("the port is taken", exit_code=69)
    specs = [house.spec("a"), house.spec("b"), house.spec("c", refused), house.spec("d")]
    with pytest.raises(StartRefused) as caught:
        await run(house.supervisor(*specs))
    assert caught.value is refused
    assert house.incarnations() == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert [line for line in house.journal if line.startswith("stop")] == ["stop b", "stop a"]
    assert house["d"].incarnations == []
    assert house["c"].reasons == [ExitReason.START_FAILED]


# S-511
async def test_a_failing_first_start_is_not_retried(house: House) -> None:
    with pytest.raises(Boom):
        await run(house.supervisor(house.spec("a", Start.FAIL), intensity=100))
    assert house["a"].incarnations == [1]


async def test_a_start_that_returns_early_fails(house: House) -> None:
    with pytest.raises(ChildStartFailed, match="returned before it reported that it serves"):
        await run(house.supervisor(house.spec("a", Start.RETURN)))


# S-513
async def test_a_start_that_hangs_fails_after_its_timeout(house: House, autojump_clock: MockClock) -> None:
    begin = trio.current_time()
    with pytest.raises(ChildStartFailed, match="within 7 s"):
        await run(house.supervisor(house.spec("a"), house.spec("b", Start.HANG, start_timeout=7.0)))
    assert trio.current_time() - begin == 7.0
    assert house["a"].reasons == [ExitReason.SHUTDOWN]


async def test_a_start_that_swallows_its_cancellation_is_left_alone(house: House, autojump_clock: MockClock) -> None:
    spec = house.spec("b", Start.SWALLOW, start_timeout=7.0, kill_grace=2.0)
    supervisor = house.supervisor(house.spec("a"), spec)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_refusal, supervisor)
        await trio.sleep(9.1)
        assert house["a"].reasons == [ExitReason.SHUTDOWN]
        assert house["b"].reasons == [ExitReason.UNSTOPPED]
        house["b"].release()
    assert house["b"].reasons == [ExitReason.UNSTOPPED]


async def _expect_refusal(supervisor: Supervisor) -> None:
    with pytest.raises(ChildStartFailed):
        await run(supervisor)


# S-514
async def test_a_child_that_declines_is_no_failure(house: House) -> None:
    supervisor = house.supervisor(
        house.spec("a", Start.IGNORE),
        house.spec("b", needs=("a",)),
        house.spec("c", Start.IGNORE, restart=Restart.TEMPORARY),
    )
    async with house.running(supervisor):
        states = {info.name: info.state for info in supervisor.which_children()}
        assert states == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert len(house["a"].finals) == len(house["c"].finals) == 1


# S-409 S-512
async def test_a_failing_start_after_boot_is_a_failed_attempt(house: House) -> None:
    async with house.running(house.supervisor(house.spec("a"), house.spec("b"))):
        house["a"].starts.append(Start.FAIL)
        house["a"].crash()
        await settle()
        assert house["a"].reasons == [ExitReason.CRASHED, ExitReason.START_FAILED]


async def test_a_hanging_restart_is_given_up_and_tried_again(house: House, autojump_clock: MockClock) -> None:
    spec = house.spec("a", start_timeout=3.0, backoff=Backoff(initial=1.0, jitter=0.0))
    async with house.running(house.supervisor(spec)):
        house["a"].starts.append(Start.HANG)
        house["a"].crash()
        await trio.sleep(4.5)
        assert house["a"].served == [1, 3]
        assert house["a"].reasons == [ExitReason.CRASHED, ExitReason.START_FAILED]


async def test_a_crash_in_the_step_that_reports_serving_is_a_crash_and_no_failed_start(house: House) -> None:
    async with house.running(house.supervisor(house.spec("a", Start.SERVE_AND_CRASH), house.spec("b"))):
        await settle()
        assert house.incarnations() == {"a": 2, "b": 1}
        assert house.kinds()[:3] == ["ChildStarted a", "ChildExited a", "ChildRestarting a"]


# S-515
async def test_a_child_waits_for_a_needed_sibling_that_is_on_its_way_up(
    house: House, autojump_clock: MockClock
) -> None:
    pool = house.spec("pool", backoff=Backoff(initial=4.0, jitter=0.0))
    supervisor = house.supervisor(pool, house.spec("web", needs=("pool",)))
    async with house.running(supervisor):
        house["pool"].crash()
        await settle()
        house["pool"].crash()
        house["web"].crash()
        await trio.sleep(3.9)
        assert house.incarnations() == {"pool": 2, "web": 1}
        await trio.sleep(0.2)
        assert house.incarnations() == {"pool": 3, "web": 2}


# S-515
async def test_a_child_does_not_wait_for_a_needed_sibling_that_stays_down(house: House) -> None:
    supervisor = house.supervisor(house.spec("pool"), house.spec("web", needs=("pool",)))
    async with house.running(supervisor):
        await supervisor.terminate_child("pool")
        house["web"].crash()
        await settle()
        assert house.incarnations() == {"pool": 1, "web": 2}


# S-409 S-525
async def test_a_supervisor_can_run_again_and_incarnations_go_on(house: House) -> None:
    supervisor = house.supervisor(house.spec("a"))
    for _ in range(3):
        async with house.running(supervisor):
            pass
    assert house["a"].served == [1, 2, 3]


async def test_a_supervisor_runs_once_at_a_time(house: House) -> None:
    supervisor = house.supervisor(house.spec("a"))
    async with house.running(supervisor):
        with pytest.raises(RuntimeError, match="running already"):
            await supervisor.run(2)
        assert house["a"].served == [1]


async def test_a_supervisor_without_children_serves_and_stops(house: House) -> None:
    supervisor = house.supervisor()
    async with house.running(supervisor):
        assert supervisor.count_children().specs == 0


async def test_a_request_to_stop_before_the_run_is_obeyed(house: House) -> None:
    from runtime.child import StopCause, StopReason

    supervisor = house.supervisor(house.spec("a"))
    supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
    await run(supervisor)
    assert house["a"].incarnations == []


# S-526
async def test_hooks_that_raise_are_reported_and_harm_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise Boom("hook")

    supervisor = house.supervisor(house.spec("a"), house.spec("b"))
    for hook in ("on_exit", "on_final", "request_stop"):
        monkeypatch.setattr(Misbehaving, hook, broken)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, 1)
            house["a"].crash()
            await settle()
            assert house.incarnations() == {"a": 2, "b": 1}
            for child in house.children.values():
                child.finish()
            nursery.cancel_scope.cancel()
    assert {event.hook for event in house.events if event.kind == "ChildHookFailed"} == {  # type: ignore[attr-defined]  # selected by kind
        "on_exit",
        "on_final",
        "request_stop",
    }
