"""Children made from a template: OTP's simple_one_for_one."""

# a virtual clock works by being asked for

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.backoff import NO_BACKOFF
from runtime.child import ChildSpec, ExitReason, Restart
from runtime.supervisor import AdministrationError, Answer, ChildStartFailed, RestartIntensityExceeded
from tests.runtime.misbehaving import House, Start, Stop, settle


async def test_children_are_made_from_the_template_and_its_arguments(house: House) -> None:
    pen = house.dynamic(house.spec)
    async with house.running(pen):
        assert [await pen.start_child(name) for name in ("a", "b")] == [1, 1]
        assert [info.name for info in pen.which_children()] == ["a", "b"]
        house["a"].crash()
        await settle()
        assert house.incarnations() == {"a": 2, "b": 1}
    assert len(house["a"].finals) == 1


# S-524
async def test_children_are_stopped_all_at_once(house: House, autojump_clock: MockClock) -> None:
    pen = house.dynamic(lambda name: house.spec(name, stop=Stop.SLOW))
    async with house.running(pen):
        for name in "abcde":
            await pen.start_child(name)
        begin = trio.current_time()
    assert trio.current_time() - begin == 1.0
    assert all(child.reasons == [ExitReason.SHUTDOWN] for child in house.children.values())


# S-524
@pytest.mark.parametrize(
    ("restart", "listed"), [(Restart.PERMANENT, ["a"]), (Restart.TRANSIENT, []), (Restart.TEMPORARY, [])]
)
async def test_a_child_that_ended_for_good_is_forgotten(house: House, restart: Restart, listed: list[str]) -> None:
    pen = house.dynamic(lambda name: house.spec(name, restart=restart))
    async with house.running(pen):
        await pen.start_child("a")
        house["a"].finish()
        await settle()
        assert [info.name for info in pen.which_children()] == listed
        assert len(house["a"].finals) == 1 - len(listed)


async def test_a_terminated_child_is_forgotten_and_its_name_free_again(house: House) -> None:
    pen = house.dynamic(house.spec)
    async with house.running(pen):
        await pen.start_child("a")
        await pen.terminate_child("a")
        assert pen.which_children() == ()
        # The number goes on: an incarnation of this name is never mistaken for an older one.
        assert await pen.start_child("a") == 2


async def test_declining_and_failing_children_are_not_kept(house: House) -> None:
    starts = {"a": Start.IGNORE, "b": Start.FAIL}
    pen = house.dynamic(lambda name: house.spec(name, starts[name]))
    async with house.running(pen):
        assert await pen.start_child("a") is None
        with pytest.raises(ChildStartFailed):
            await pen.start_child("b")
        assert pen.which_children() == ()


async def test_restart_and_delete_answer_simple_one_for_one(house: House) -> None:
    pen = house.dynamic(house.spec)
    async with house.running(pen):
        await pen.start_child("a")
        with pytest.raises(AdministrationError) as restart:
            await pen.restart_child("a")
        with pytest.raises(AdministrationError) as delete:
            pen.delete_child("a")
        with pytest.raises(AdministrationError) as twice:
            await pen.start_child("a")
        answers = [caught.value.answer for caught in (restart, delete, twice)]
        assert answers == [Answer.SIMPLE_ONE_FOR_ONE, Answer.SIMPLE_ONE_FOR_ONE, Answer.ALREADY_STARTED]


async def test_children_start_side_by_side(house: House, autojump_clock: MockClock) -> None:
    pen = house.dynamic(lambda name: house.spec(name, *([Start.HANG] if name == "slow" else [])))
    async with house.running(pen), trio.open_nursery() as nursery:
        nursery.start_soon(_start_and_fail, pen)
        await settle()
        begin = trio.current_time()
        assert await pen.start_child("quick") == 1
        assert trio.current_time() == begin


async def _start_and_fail(pen: object) -> None:
    with pytest.raises(ChildStartFailed):
        await pen.start_child("slow")  # type: ignore[attr-defined]  # a DynamicSupervisor


# S-524
async def test_the_intensity_counts_for_all_of_them(house: House) -> None:
    pen = house.dynamic(lambda name: house.spec(name, backoff=NO_BACKOFF), intensity=1)
    with pytest.raises(RestartIntensityExceeded):
        async with house.running(pen):
            await pen.start_child("a")
            await pen.start_child("b")
            house["a"].crash()
            await settle()
            house["b"].crash()
            await settle()
    assert house.incarnations() == {"a": 2, "b": 1}


async def test_a_new_child_object_is_made_for_each_start(house: House) -> None:
    made: list[str] = []

    def template(name: str) -> ChildSpec:
        made.append(name)
        return house.spec(name)

    pen = house.dynamic(template)
    async with house.running(pen):
        await pen.start_child("a")
        house["a"].crash()
        await settle()
        assert made == ["a"]
