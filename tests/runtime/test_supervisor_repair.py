"""Repairs: a child that stands still is killed and comes back, and pays for it alone; on a virtual clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.backoff import NO_BACKOFF
from runtime.child import Exit, ExitReason, GiveUp, Restart
from runtime.supervision_events import ChildParked, SupervisorGaveUp
from runtime.supervisor import (
    AdministrationError,
    ChildState,
    RepairIntensityExceeded,
    RestartIntensityExceeded,
    Supervisor,
)
from tests.runtime.misbehaving import House, Stop, settle


async def repair(supervisor: Supervisor, name: str, *, intensity: int = 2, period: float = 100.0) -> None:
    supervisor.repair_child(name, "it stood still", intensity=intensity, period=period)
    await settle()


# S-529
async def test_any_number_of_repairs_of_different_children_charges_nobodys_attempts(house: House) -> None:
    names = [f"worker{number}" for number in range(10)]
    supervisor = house.supervisor(*(house.spec(name, backoff=NO_BACKOFF) for name in names), intensity=1)
    async with house.running(supervisor):
        for name in names:
            await repair(supervisor, name)
        assert house.incarnations() == dict.fromkeys(names, 2)
        assert house["worker0"].reasons == [ExitReason.KILLED]
        house["worker0"].crash()
        await settle()
        assert house.incarnations()["worker0"] == 3, "the one attempt is still there"


# S-529
async def test_repairs_beyond_their_own_intensity_end_the_supervisor_and_say_that_they_were_repairs(
    house: House,
) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), house.spec("b"), intensity=9)
    with pytest.raises(RepairIntensityExceeded, match=r"a had to be repaired 3 times within 100 s") as caught:
        async with house.running(supervisor):
            for _ in range(3):
                await repair(supervisor, "a")
    assert caught.value.exit_code == 69
    assert house.incarnations() == {"a": 3, "b": 1}
    assert [event.child for event in house.events_of(SupervisorGaveUp)] == ["a"]


# S-529
async def test_a_child_that_parks_is_parked_after_too_many_repairs_until_an_operator_restarts_it(house: House) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF, give_up=GiveUp.PARK), house.spec("b"))
    async with house.running(supervisor):
        for _ in range(3):
            await repair(supervisor, "a")
        (parked,) = house.events_of(ChildParked)
        assert "more than 2 repairs within 100 s; its last end: it stood still" in parked.reason
        assert supervisor.which_children()[0].state is ChildState.PARKED
        await supervisor.restart_child("a")
        await repair(supervisor, "a")
        assert supervisor.which_children()[0].state is ChildState.RUNNING, "with a fresh budget"
        assert house.incarnations()["b"] == 1


# S-529
async def test_a_child_that_never_gives_up_is_repaired_for_ever(house: House) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF, give_up=GiveUp.NEVER), intensity=0)
    async with house.running(supervisor):
        for _ in range(9):
            await repair(supervisor, "a")
        assert house.incarnations() == {"a": 10}


async def test_repairs_that_lie_outside_their_period_are_forgotten(house: House, autojump_clock: MockClock) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), intensity=0)
    async with house.running(supervisor):
        for _ in range(6):
            await repair(supervisor, "a", intensity=1, period=10.0)
            await trio.sleep(10.1)
        assert house.incarnations() == {"a": 7}


async def test_a_repair_that_comes_too_late_for_a_crash_leaves_it_an_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = house.supervisor(house.spec("a", backoff=NO_BACKOFF), intensity=0)

    def too_late(_: Exit) -> None:
        supervisor.repair_child("a", "it stood still", intensity=9, period=100.0)

    monkeypatch.setattr(house["a"], "on_exit", too_late)
    with pytest.raises(RestartIntensityExceeded):
        async with house.running(supervisor):
            house["a"].crash()
            await settle()


async def test_one_that_ignores_its_repair_comes_back_uncharged_once_its_task_is_gone(
    house: House, autojump_clock: MockClock
) -> None:
    spec = house.spec("a", stop=Stop.SWALLOW, backoff=NO_BACKOFF, kill_grace=1.0)
    supervisor = house.supervisor(spec, intensity=0)
    async with house.running(supervisor):
        await repair(supervisor, "a")
        await trio.sleep(2.0)
        assert supervisor.which_children()[0].state is ChildState.UNSTOPPED
        house["a"].stop = Stop.OBEY
        house["a"].release()
        await settle()
        assert house.incarnations() == {"a": 2}


async def test_a_temporary_child_is_not_brought_back_by_a_repair(house: House) -> None:
    supervisor = house.supervisor(house.spec("a", restart=Restart.TEMPORARY))
    async with house.running(supervisor):
        await repair(supervisor, "a")
        assert supervisor.which_children() == ()


async def test_a_child_that_is_down_cannot_be_repaired(house: House) -> None:
    supervisor = house.supervisor(house.spec("a"))
    async with house.running(supervisor):
        await supervisor.terminate_child("a")
        with pytest.raises(AdministrationError, match="not_running"):
            await repair(supervisor, "a")
