"""Restart intensity, backoff and giving up, on a virtual clock."""

# a virtual clock works by being asked for

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.backoff import NO_BACKOFF, Backoff
from runtime.child import Exit, ExitReason, GiveUp, Strategy
from runtime.errors import Killed
from runtime.supervision_events import ChildParked, ChildRestarting, SupervisorGaveUp
from runtime.supervisor import AdministrationError, ChildState, RestartIntensityExceeded, SpecError
from tests.runtime.misbehaving import House, Start, settle


# S-507
async def test_one_attempt_more_than_the_intensity_ends_the_supervisor(house: House) -> None:
    specs = [house.spec("a", backoff=NO_BACKOFF), house.spec("b")]
    supervisor = house.supervisor(*specs, intensity=2, period=10.0)
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with house.running(supervisor):
            for _ in range(2):
                house["a"].crash()
                await settle()
            assert house.incarnations() == {"a": 3, "b": 1}
            house["a"].crash()
            await settle()
            assert supervisor.which_children() == ()
    assert house.incarnations() == {"a": 3, "b": 1}
    assert house["b"].reasons == [ExitReason.SHUTDOWN]
    assert "a made restart attempt 3 within 10 s; its last end: Boom: a" in str(caught.value)
    assert caught.value.exit_code == 69
    assert [event.child for event in house.events_of(SupervisorGaveUp)] == ["a"]
    assert len(house["a"].finals) == len(house["b"].finals) == 1


async def test_intensity_zero_gives_up_at_the_first_crash(house: House) -> None:
    with pytest.raises(RestartIntensityExceeded):
        async with house.running(house.supervisor(house.spec("a"), intensity=0)):
            house["a"].crash()
            await settle()
    assert house["a"].incarnations == [1]


# S-507
async def test_a_failing_start_burns_the_budget(house: House) -> None:
    specs = [house.spec("a", backoff=NO_BACKOFF), house.spec("b")]
    with pytest.raises(RestartIntensityExceeded):
        async with house.running(house.supervisor(*specs, intensity=3)):
            house["a"].starts.extend([Start.FAIL] * 10)
            house["a"].crash()
            await settle()
    assert house["a"].incarnations == [1, 2, 3, 4]
    assert house["a"].reasons == [ExitReason.CRASHED, *[ExitReason.START_FAILED] * 3]


# S-508
async def test_all_children_share_the_window(house: House) -> None:
    specs = [house.spec(name, backoff=NO_BACKOFF) for name in "abc"]
    with pytest.raises(RestartIntensityExceeded):
        async with house.running(house.supervisor(*specs, intensity=2)):
            for name in "abc":
                house[name].crash()
                await settle()
    assert house.incarnations() == {"a": 2, "b": 2, "c": 1}


# S-507
@pytest.mark.parametrize(("pause", "survives"), [(10.0, False), (10.001, True)])
async def test_the_window_slides_and_is_closed(
    house: House, autojump_clock: MockClock, pause: float, survives: bool
) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), intensity=1, period=10.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(_collect, supervisor, house)
        house["a"].crash()
        await trio.sleep(pause)
        house["a"].crash()
        await settle()
        assert (len(supervisor.which_children()) == 1) is survives
        nursery.cancel_scope.cancel()


async def _collect(supervisor: object, house: House, *, task_status: trio.TaskStatus[None]) -> None:
    try:
        await supervisor.run(1, task_status=task_status)  # type: ignore[attr-defined]  # a Supervisor
    except RestartIntensityExceeded:
        house.journal.append("gave up")


# S-510
async def test_the_first_restart_is_immediate_the_next_ones_wait_longer_and_longer(
    house: House, autojump_clock: MockClock
) -> None:
    backoff = Backoff(initial=1.0, factor=3.0, maximum=5.0, jitter=0.2)
    supervisor = house.supervisor(house.spec("a", backoff=backoff), house.spec("b"), intensity=10)
    async with house.running(supervisor):
        begin = trio.current_time()
        for _ in range(4):
            house["a"].crash()
            await trio.sleep(6.0)
        starts = [at - begin - 6.0 * index for index, at in enumerate(house["a"].served_at[1:])]
        assert starts == pytest.approx([0.0, 1.0, 3.0, 5.0])
        assert [event.delay for event in house.events_of(ChildRestarting)] == pytest.approx([0.0, 1.0, 3.0, 5.0])
        assert house["b"].served == [1]


async def test_jitter_comes_from_the_chance_that_is_given(house: House, autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=10.0, jitter=0.5)
    supervisor = house.supervisor(house.spec("a", backoff=backoff))
    supervisor._chance = lambda: 0.0  # the house fixes it to the middle for all other tests
    async with house.running(supervisor):
        house["a"].crash()
        await settle()
        house["a"].crash()
        await settle()
        assert [event.delay for event in house.events_of(ChildRestarting)] == [0.0, 5.0]


# S-510
async def test_a_quiet_time_makes_the_next_restart_immediate_again(house: House, autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=1.0, reset_after=30.0, jitter=0.0)
    supervisor = house.supervisor(house.spec("a", backoff=backoff), intensity=10)
    async with house.running(supervisor):
        for pause in (0.0, 24.9, 26.1, 0.0):
            await trio.sleep(pause)
            house["a"].crash()
            await trio.sleep(5.0)
        # The second life lasted 29.9 s, the third 30.1 s because it began after 1 s of backoff.
        assert [event.restart for event in house.events_of(ChildRestarting)] == [1, 2, 1, 2]


async def test_while_it_waits_a_child_is_restarting_and_says_until_when(
    house: House, autojump_clock: MockClock
) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=Backoff(initial=4.0, jitter=0.0)))
    async with house.running(supervisor):
        house["a"].crash()
        await settle()
        house["a"].crash()
        await settle()
        (info,) = supervisor.which_children()
        assert (info.state, info.incarnation, info.restarts) == (ChildState.RESTARTING, 2, 2)
        assert info.next_start == trio.current_time() + 4.0
        await trio.sleep(4.1)
        assert house["a"].served == [1, 2, 3]


async def test_a_group_waits_for_the_backoff_of_the_child_that_crashed(house: House, autojump_clock: MockClock) -> None:
    specs = [house.spec("a"), house.spec("b", backoff=Backoff(initial=4.0, jitter=0.0))]
    supervisor = house.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with house.running(supervisor):
        house["b"].crash()
        await settle()
        house["b"].crash()
        await trio.sleep(3.9)
        assert house.incarnations() == {"a": 2, "b": 2}
        await trio.sleep(0.2)
        assert house.incarnations() == {"a": 3, "b": 3}


# S-509
async def test_a_parking_child_goes_down_alone_and_its_siblings_keep_their_budget(house: House) -> None:
    specs = [house.spec("a", give_up=GiveUp.PARK, backoff=NO_BACKOFF), house.spec("b", backoff=NO_BACKOFF)]
    supervisor = house.supervisor(*specs, intensity=1)
    async with house.running(supervisor):
        for _ in range(2):
            house["a"].crash()
            await settle()
        assert house.incarnations() == {"a": 2, "b": 1}
        parked, other = supervisor.which_children()
        assert (parked.state, other.state) == (ChildState.PARKED, ChildState.RUNNING)
        assert "more than 1 restarts within 60 s; its last end: Boom: a" in parked.reason
        assert len(house["a"].parked) == 1
        assert house["a"].finals == []
        assert [event.actor for event in house.events_of(ChildParked)] == ["a"]
        # The parked child's attempts were not charged to the supervisor.
        house["b"].crash()
        await settle()
        assert house.incarnations() == {"a": 2, "b": 2}


# S-509
async def test_an_operator_brings_a_parked_child_back_with_a_fresh_budget(house: House) -> None:
    spec = house.spec("a", give_up=GiveUp.PARK, backoff=NO_BACKOFF)
    supervisor = house.supervisor(spec, intensity=1)
    async with house.running(supervisor):
        for _ in range(2):
            house["a"].crash()
            await settle()
        assert await supervisor.restart_child("a") == 3
        house["a"].crash()
        await settle()
        assert house["a"].served == [1, 2, 3, 4]


# S-508
async def test_a_child_that_never_gives_up_is_not_counted(house: House) -> None:
    specs = [house.spec("a", give_up=GiveUp.NEVER, backoff=NO_BACKOFF), house.spec("b")]
    supervisor = house.supervisor(*specs, intensity=1)
    async with house.running(supervisor):
        for _ in range(20):
            house["a"].crash()
            await settle()
        house["b"].crash()
        await settle()
        assert house.incarnations() == {"a": 21, "b": 2}


# S-527
@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
def test_parking_is_refused_where_siblings_cannot_do_without_the_child(house: House, strategy: Strategy) -> None:
    with pytest.raises(SpecError, match="give_up"):
        house.supervisor(house.spec("a", give_up=GiveUp.PARK), strategy=strategy)


async def test_after_giving_up_nothing_can_be_asked(house: House) -> None:
    supervisor = house.supervisor(house.spec("a"), intensity=0)
    with pytest.raises(RestartIntensityExceeded):
        async with house.running(supervisor):
            house["a"].crash()
            await settle()
            with pytest.raises(AdministrationError, match="not_running"):
                await supervisor.restart_child("a")


# S-525
async def test_attempts_are_forgotten_when_the_supervisor_lives_again(house: House) -> None:
    spec = house.spec("a", give_up=GiveUp.PARK, backoff=NO_BACKOFF)
    supervisor = house.supervisor(spec, intensity=1)
    for _ in range(2):
        async with house.running(supervisor):
            house["a"].crash()
            await settle()
            assert [info.state for info in supervisor.which_children()] == [ChildState.RUNNING]
    assert house["a"].served == [1, 2, 3, 4]


# S-531
async def test_any_number_of_kills_on_purpose_charges_nobodys_attempts(house: House) -> None:
    parks = house.spec("parks", backoff=NO_BACKOFF, give_up=GiveUp.PARK)
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), parks, intensity=1, period=600.0)
    async with house.running(supervisor):
        for _ in range(12):
            for name in ("a", "parks"):
                supervisor.kill_child(name, "killed by an operator", counts=False)
                await settle()
        for _ in range(12):
            house["a"].crash(ExceptionGroup("a nursery's", [Killed("a", "claimed")]))
            await settle()
        assert house.incarnations() == {"a": 25, "parks": 13}
        for name in ("a", "parks"):
            house[name].crash()
            await settle()
        assert house.incarnations() == {"a": 26, "parks": 14}, "the one attempt of each is still there"


# S-531
async def test_a_kill_on_purpose_waits_for_its_backoff_like_any_other_end(
    house: House, autojump_clock: MockClock
) -> None:
    backoff = Backoff(initial=4.0, maximum=4.0, jitter=0.0)
    supervisor = house.supervisor(house.spec("a", backoff=backoff), intensity=0)
    async with house.running(supervisor):
        for _ in range(2):
            supervisor.kill_child("a", "killed by an operator", counts=False)
            await settle()
        assert house.incarnations() == {"a": 2}
        await trio.sleep(4.0)
        await settle()
        assert house.incarnations() == {"a": 3}


# S-531
async def test_a_kill_on_purpose_that_comes_too_late_for_a_crash_leaves_it_an_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), intensity=0)

    def too_late(_: Exit) -> None:
        supervisor.kill_child("a", "killed by an operator", counts=False)

    monkeypatch.setattr(house["a"], "on_exit", too_late)
    with pytest.raises(RestartIntensityExceeded, match="Boom: a"):
        async with house.running(supervisor):
            house["a"].crash()
            await settle()


# S-531
async def test_kills_that_count_are_attempts(house: House) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), intensity=1)
    with pytest.raises(RestartIntensityExceeded, match="on a whim"):
        async with house.running(supervisor):
            for _ in range(2):
                supervisor.kill_child("a", "on a whim")
                await settle()
