"""Repairs: a child that stands still is killed and comes back, and pays for it alone; on a virtual clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.child import Exit, ExitReason, GiveUp, Restart
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.events import ChildParked, SupervisorGaveUp
from runtime.supervision.supervisor import (
    AdministrationError,
    ChildState,
    RepairIntensityExceeded,
    RestartIntensityExceeded,
    Supervisor,
)
from tests.runtime.supervision.misbehaving import Harness, Stop, settle


async def repair(supervisor: Supervisor, name: str, *, intensity: int = 2, period: float = 100.0) -> None:
    supervisor.repair_child(name, "it stood still", intensity=intensity, period=period)
    await settle()


# S-529
async def test_any_number_of_repairs_of_different_children_charges_nobodys_attempts(harness: Harness) -> None:
    names = [f"worker{number}" for number in range(10)]
    supervisor = harness.supervisor(*(harness.spec(name, backoff=NO_BACKOFF) for name in names), intensity=1)
    async with harness.running(supervisor):
        for name in names:
            await repair(supervisor, name)
        assert harness.incarnations() == dict.fromkeys(names, 2)
        assert harness["worker0"].reasons == [ExitReason.KILLED]
        harness["worker0"].crash()
        await settle()
        assert harness.incarnations()["worker0"] == 3, "the one attempt is still there"


# S-529
async def test_repairs_beyond_their_own_intensity_end_the_supervisor_and_are_named(
    harness: Harness,
) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), harness.spec("b"), intensity=9)
    with pytest.raises(RepairIntensityExceeded, match=r"a had to be repaired 3 times within 100 s") as caught:
        async with harness.running(supervisor):
            for _ in range(3):
                await repair(supervisor, "a")
    assert caught.value.exit_code == 69
    assert harness.incarnations() == {"a": 3, "b": 1}
    assert [event.child for event in harness.events_of(SupervisorGaveUp)] == ["a"]


# S-529
async def test_a_child_that_parks_stays_parked_after_too_many_repairs_until_a_restart(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF, give_up=GiveUp.PARK), harness.spec("b"))
    async with harness.running(supervisor):
        for _ in range(3):
            await repair(supervisor, "a")
        (parked,) = harness.events_of(ChildParked)
        assert "more than 2 repairs within 100 s; its last end: it stood still" in parked.reason
        assert supervisor.which_children()[0].state is ChildState.PARKED
        await supervisor.restart_child("a")
        await repair(supervisor, "a")
        assert supervisor.which_children()[0].state is ChildState.RUNNING, "with a fresh budget"
        assert harness.incarnations()["b"] == 1


# S-529
async def test_a_child_that_never_gives_up_is_repaired_for_ever(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF, give_up=GiveUp.NEVER), intensity=0)
    async with harness.running(supervisor):
        for _ in range(9):
            await repair(supervisor, "a")
        assert harness.incarnations() == {"a": 10}


async def test_repairs_that_lie_outside_their_period_are_forgotten(harness: Harness, autojump_clock: MockClock) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), intensity=0)
    async with harness.running(supervisor):
        for _ in range(6):
            await repair(supervisor, "a", intensity=1, period=10.0)
            await trio.sleep(10.1)
        assert harness.incarnations() == {"a": 7}


async def test_a_repair_that_comes_too_late_for_a_crash_leaves_it_an_attempt(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = harness.supervisor(harness.spec("a", backoff=NO_BACKOFF), intensity=0)

    def too_late(_: Exit) -> None:
        supervisor.repair_child("a", "it stood still", intensity=9, period=100.0)

    monkeypatch.setattr(harness["a"], "on_exit", too_late)
    with pytest.raises(RestartIntensityExceeded):
        async with harness.running(supervisor):
            harness["a"].crash()
            await settle()


async def test_one_that_ignores_its_repair_comes_back_uncharged_once_its_task_is_gone(
    harness: Harness, autojump_clock: MockClock
) -> None:
    spec = harness.spec("a", stop=Stop.SWALLOW, backoff=NO_BACKOFF, kill_grace=1.0)
    supervisor = harness.supervisor(spec, intensity=0)
    async with harness.running(supervisor):
        await repair(supervisor, "a")
        await trio.sleep(2.0)
        assert supervisor.which_children()[0].state is ChildState.UNSTOPPED
        harness["a"].stop = Stop.OBEY
        harness["a"].release()
        await settle()
        assert harness.incarnations() == {"a": 2}


async def test_a_temporary_child_is_not_brought_back_by_a_repair(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a", restart=Restart.TEMPORARY))
    async with harness.running(supervisor):
        await repair(supervisor, "a")
        assert supervisor.which_children() == ()


async def test_a_child_that_is_down_cannot_be_repaired(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        await supervisor.terminate_child("a")
        with pytest.raises(AdministrationError, match="not_running"):
            await repair(supervisor, "a")
