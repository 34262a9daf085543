"""Restart intensity, backoff and giving up, on a virtual clock."""

# a virtual clock works by being asked for

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.child import Exit, ExitReason, GiveUp, Strategy
from runtime.errors import Killed
from runtime.restart_limits import NO_BACKOFF, Backoff
from runtime.supervision.events import ChildParked, ChildRestarting, SupervisorGaveUp
from runtime.supervision.supervisor import AdministrationError, ChildState, RestartIntensityExceeded, SpecError
from tests.runtime.supervision.misbehaving import Harness, Start, settle


# S-507
async def test_one_attempt_more_than_the_intensity_ends_the_supervisor(harness: Harness) -> None:
    specs = [harness.spec("a", backoff=NO_BACKOFF), harness.spec("b")]
    supervisor = harness.supervisor(*specs, intensity=2, period=10.0)
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with harness.running(supervisor):
            for _ in range(2):
                harness["a"].crash()
                await settle()
            assert harness.incarnations() == {"a": 3, "b": 1}
            harness["a"].crash()
            await settle()
            assert supervisor.which_children() == ()
    assert harness.incarnations() == {"a": 3, "b": 1}
    assert harness["b"].reasons == [ExitReason.SHUTDOWN]
    assert "a made restart attempt 3 within 10 s; its last end: Boom: a" in str(caught.value)
    assert caught.value.exit_code == 69
    assert [event.child for event in harness.events_of(SupervisorGaveUp)] == ["a"]
    assert len(harness["a"].finals) == len(harness["b"].finals) == 1


async def test_intensity_zero_gives_up_at_the_first_crash(harness: Harness) -> None:
    with pytest.raises(RestartIntensityExceeded):
        async with harness.running(harness.supervisor(harness.spec("a"), intensity=0)):
            harness["a"].crash()
            await settle()
    assert harness["a"].incarnations == [1]


# S-507
async def test_a_failing_start_burns_the_budget(harness: Harness) -> None:
    specs = [harness.spec("a", backoff=NO_BACKOFF), harness.spec("b")]
    with pytest.raises(RestartIntensityExceeded):
        async with harness.running(harness.supervisor(*specs, intensity=3)):
            harness["a"].starts.extend([Start.FAIL] * 10)
            harness["a"].crash()
            await settle()
    assert harness["a"].incarnations == [1, 2, 3, 4]
    assert harness["a"].reasons == [ExitReason.CRASHED, *[ExitReason.START_FAILED] * 3]


# S-508
async def test_all_children_share_the_window(harness: Harness) -> None:
    specs = [harness.spec(name, backoff=NO_BACKOFF) for name in "abc"]
    with pytest.raises(RestartIntensityExceeded):
        async with harness.running(harness.supervisor(*specs, intensity=2)):
            for name in "abc":
                harness[name].crash()
                await settle()
    assert harness.incarnations() == {"a": 2, "b": 2, "c": 1}


# S-507
@pytest.mark.parametrize(("pause", "survives"), [(10.0, False), (10.001, True)])
async def test_the_window_slides_and_is_closed(
    harness: Harness, autojump_clock: MockClock, pause: float, survives: bool
) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), intensity=1, period=10.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(_collect, supervisor, harness)
        harness["a"].crash()
        await trio.sleep(pause)
        harness["a"].crash()
        await settle()
        assert (len(supervisor.which_children()) == 1) is survives
        nursery.cancel_scope.cancel()


async def _collect(supervisor: object, harness: Harness, *, task_status: trio.TaskStatus[None]) -> None:
    try:
        await supervisor.run(1, task_status=task_status)  # type: ignore[attr-defined]  # a Supervisor
    except RestartIntensityExceeded:
        harness.journal.append("gave up")


# S-510
async def test_the_first_restart_is_immediate_the_next_ones_wait_longer_and_longer(
    harness: Harness, autojump_clock: MockClock
) -> None:
    backoff = Backoff(initial=1.0, factor=3.0, maximum=5.0, jitter=0.2)
    supervisor = harness.supervisor(harness.spec("a", backoff=backoff), harness.spec("b"), intensity=10)
    async with harness.running(supervisor):
        begin = trio.current_time()
        for _ in range(4):
            harness["a"].crash()
            await trio.sleep(6.0)
        starts = [at - begin - 6.0 * index for index, at in enumerate(harness["a"].served_at[1:])]
        assert starts == pytest.approx([0.0, 1.0, 3.0, 5.0])
        assert [event.delay for event in harness.events_of(ChildRestarting)] == pytest.approx([0.0, 1.0, 3.0, 5.0])
        assert harness["b"].served == [1]


async def test_jitter_comes_from_the_chance_that_is_given(harness: Harness, autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=10.0, jitter=0.5)
    supervisor = harness.supervisor(harness.spec("a", backoff=backoff))
    supervisor._chance = lambda: 0.0  # the harness fixes it to the middle for all other tests
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        harness["a"].crash()
        await settle()
        assert [event.delay for event in harness.events_of(ChildRestarting)] == [0.0, 5.0]


# S-510
async def test_a_quiet_time_makes_the_next_restart_immediate_again(harness: Harness, autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=1.0, reset_after=30.0, jitter=0.0)
    supervisor = harness.supervisor(harness.spec("a", backoff=backoff), intensity=10)
    async with harness.running(supervisor):
        for pause in (0.0, 24.9, 26.1, 0.0):
            await trio.sleep(pause)
            harness["a"].crash()
            await trio.sleep(5.0)
        # The second life lasted 29.9 s, the third 30.1 s because it began after 1 s of backoff.
        assert [event.restart for event in harness.events_of(ChildRestarting)] == [1, 2, 1, 2]


async def test_while_it_waits_a_child_is_restarting_and_says_until_when(
    harness: Harness, autojump_clock: MockClock
) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=Backoff(initial=4.0, jitter=0.0)))
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        harness["a"].crash()
        await settle()
        (info,) = supervisor.which_children()
        assert (info.state, info.incarnation, info.restarts) == (ChildState.RESTARTING, 2, 2)
        assert info.next_start == trio.current_time() + 4.0
        await trio.sleep(4.1)
        assert harness["a"].served == [1, 2, 3]


async def test_a_group_waits_for_the_backoff_of_the_child_that_crashed(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [harness.spec("a"), harness.spec("b", backoff=Backoff(initial=4.0, jitter=0.0))]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["b"].crash()
        await settle()
        harness["b"].crash()
        await trio.sleep(3.9)
        assert harness.incarnations() == {"a": 2, "b": 2}
        await trio.sleep(0.2)
        assert harness.incarnations() == {"a": 3, "b": 3}


# S-509
async def test_a_parking_child_goes_down_alone_and_its_siblings_keep_their_budget(harness: Harness) -> None:
    specs = [harness.spec("a", give_up=GiveUp.PARK, backoff=NO_BACKOFF), harness.spec("b", backoff=NO_BACKOFF)]
    supervisor = harness.supervisor(*specs, intensity=1)
    async with harness.running(supervisor):
        for _ in range(2):
            harness["a"].crash()
            await settle()
        assert harness.incarnations() == {"a": 2, "b": 1}
        parked, other = supervisor.which_children()
        assert (parked.state, other.state) == (ChildState.PARKED, ChildState.RUNNING)
        assert "more than 1 restarts within 60 s; its last end: Boom: a" in parked.reason
        assert len(harness["a"].parked) == 1
        assert harness["a"].finals == []
        assert [event.actor for event in harness.events_of(ChildParked)] == ["a"]
        # The parked child's attempts were not charged to the supervisor.
        harness["b"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 2}


# S-509
async def test_an_operator_brings_a_parked_child_back_with_a_fresh_budget(harness: Harness) -> None:
    spec = harness.spec("a", give_up=GiveUp.PARK, backoff=NO_BACKOFF)
    supervisor = harness.supervisor(spec, intensity=1)
    async with harness.running(supervisor):
        for _ in range(2):
            harness["a"].crash()
            await settle()
        assert await supervisor.restart_child("a") == 3
        harness["a"].crash()
        await settle()
        assert harness["a"].served == [1, 2, 3, 4]


# S-508
async def test_a_child_that_never_gives_up_is_not_counted(harness: Harness) -> None:
    specs = [harness.spec("a", give_up=GiveUp.NEVER, backoff=NO_BACKOFF), harness.spec("b")]
    supervisor = harness.supervisor(*specs, intensity=1)
    async with harness.running(supervisor):
        for _ in range(20):
            harness["a"].crash()
            await settle()
        harness["b"].crash()
        await settle()
        assert harness.incarnations() == {"a": 21, "b": 2}


# S-527
@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
def test_parking_is_refused_where_siblings_cannot_do_without_the_child(harness: Harness, strategy: Strategy) -> None:
    with pytest.raises(SpecError, match="give_up"):
        harness.supervisor(harness.spec("a", give_up=GiveUp.PARK), strategy=strategy)


async def test_after_giving_up_nothing_can_be_asked(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), intensity=0)
    with pytest.raises(RestartIntensityExceeded):
        async with harness.running(supervisor):
            harness["a"].crash()
            await settle()
            with pytest.raises(AdministrationError, match="not_running"):
                await supervisor.restart_child("a")


# S-525
async def test_attempts_are_forgotten_when_the_supervisor_lives_again(harness: Harness) -> None:
    spec = harness.spec("a", give_up=GiveUp.PARK, backoff=NO_BACKOFF)
    supervisor = harness.supervisor(spec, intensity=1)
    for _ in range(2):
        async with harness.running(supervisor):
            harness["a"].crash()
            await settle()
            assert [info.state for info in supervisor.which_children()] == [ChildState.RUNNING]
    assert harness["a"].served == [1, 2, 3, 4]


# S-531
async def test_any_number_of_kills_on_purpose_charges_nobodys_attempts(harness: Harness) -> None:
    parks = harness.spec("parks", backoff=NO_BACKOFF, give_up=GiveUp.PARK)
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), parks, intensity=1, period=600.0)
    async with harness.running(supervisor):
        for _ in range(12):
            for name in ("a", "parks"):
                supervisor.kill_child(name, "killed by an operator", counts=False)
                await settle()
        for _ in range(12):
            harness["a"].crash(ExceptionGroup("a nursery's", [Killed("a", "claimed")]))
            await settle()
        assert harness.incarnations() == {"a": 25, "parks": 13}
        for name in ("a", "parks"):
            harness[name].crash()
            await settle()
        assert harness.incarnations() == {"a": 26, "parks": 14}, "the one attempt of each is still there"


# S-531
async def test_a_kill_on_purpose_waits_for_its_backoff_like_any_other_end(
    harness: Harness, autojump_clock: MockClock
) -> None:
    backoff = Backoff(initial=4.0, maximum=4.0, jitter=0.0)
    supervisor = harness.supervisor(harness.spec("a", backoff=backoff), intensity=0)
    async with harness.running(supervisor):
        for _ in range(2):
            supervisor.kill_child("a", "killed by an operator", counts=False)
            await settle()
        assert harness.incarnations() == {"a": 2}
        await trio.sleep(4.0)
        await settle()
        assert harness.incarnations() == {"a": 3}


# S-531
async def test_a_kill_on_purpose_that_comes_too_late_for_a_crash_leaves_it_an_attempt(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), intensity=0)

    def too_late(_: Exit) -> None:
        supervisor.kill_child("a", "killed by an operator", counts=False)

    monkeypatch.setattr(harness["a"], "on_exit", too_late)
    with pytest.raises(RestartIntensityExceeded, match="Boom: a"):
        async with harness.running(supervisor):
            harness["a"].crash()
            await settle()


# S-531
async def test_kills_that_count_are_attempts(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), intensity=1)
    with pytest.raises(RestartIntensityExceeded, match="on a whim"):
        async with harness.running(supervisor):
            for _ in range(2):
                supervisor.kill_child("a", "on a whim")
                await settle()
