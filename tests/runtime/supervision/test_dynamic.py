"""Children made from a template: OTP's simple_one_for_one."""

# a virtual clock works by being asked for

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtime.child import ChildSpec, ExitReason, Restart
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.supervisor import (
    AdministrationError,
    ChildStartFailed,
    RefusalReason,
    RestartIntensityExceeded,
)
from tests.runtime.supervision.misbehaving import Harness, Start, Stop, settle


async def test_children_are_made_from_the_template_and_its_arguments(harness: Harness) -> None:
    pen = harness.dynamic(harness.spec)
    async with harness.running(pen):
        assert [await pen.start_child(name) for name in ("a", "b")] == [1, 1]
        assert [info.name for info in pen.which_children()] == ["a", "b"]
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 1}
    assert len(harness["a"].finals) == 1


# S-524
async def test_children_are_stopped_all_at_once(harness: Harness, autojump_clock: MockClock) -> None:
    pen = harness.dynamic(lambda name: harness.spec(name, stop=Stop.SLOW))
    async with harness.running(pen):
        for name in "abcde":
            await pen.start_child(name)
        begin = trio.current_time()
    assert trio.current_time() - begin == 1.0
    assert all(child.reasons == [ExitReason.SHUTDOWN] for child in harness.children.values())


# S-524
@pytest.mark.parametrize(
    ("restart", "listed"), [(Restart.PERMANENT, ["a"]), (Restart.TRANSIENT, []), (Restart.TEMPORARY, [])]
)
async def test_a_child_that_ended_for_good_is_forgotten(harness: Harness, restart: Restart, listed: list[str]) -> None:
    pen = harness.dynamic(lambda name: harness.spec(name, restart=restart))
    async with harness.running(pen):
        await pen.start_child("a")
        harness["a"].finish()
        await settle()
        assert [info.name for info in pen.which_children()] == listed
        assert len(harness["a"].finals) == 1 - len(listed)


async def test_a_terminated_child_is_forgotten_and_its_name_free_again(harness: Harness) -> None:
    pen = harness.dynamic(harness.spec)
    async with harness.running(pen):
        await pen.start_child("a")
        await pen.terminate_child("a")
        assert pen.which_children() == ()
        # The number goes on: an incarnation of this name is never mistaken for an older one.
        assert await pen.start_child("a") == 2


async def test_declining_and_failing_children_are_not_kept(harness: Harness) -> None:
    starts = {"a": Start.IGNORE, "b": Start.FAIL}
    pen = harness.dynamic(lambda name: harness.spec(name, starts[name]))
    async with harness.running(pen):
        assert await pen.start_child("a") is None
        with pytest.raises(ChildStartFailed):
            await pen.start_child("b")
        assert pen.which_children() == ()


async def test_restart_and_delete_answer_simple_one_for_one(harness: Harness) -> None:
    pen = harness.dynamic(harness.spec)
    async with harness.running(pen):
        await pen.start_child("a")
        with pytest.raises(AdministrationError) as restart:
            await pen.restart_child("a")
        with pytest.raises(AdministrationError) as delete:
            pen.delete_child("a")
        with pytest.raises(AdministrationError) as twice:
            await pen.start_child("a")
        answers = [caught.value.answer for caught in (restart, delete, twice)]
        assert answers == [
            RefusalReason.SIMPLE_ONE_FOR_ONE,
            RefusalReason.SIMPLE_ONE_FOR_ONE,
            RefusalReason.ALREADY_STARTED,
        ]


async def test_children_start_side_by_side(harness: Harness, autojump_clock: MockClock) -> None:
    pen = harness.dynamic(lambda name: harness.spec(name, *([Start.HANG] if name == "slow" else [])))
    async with harness.running(pen), trio.open_nursery() as nursery:
        nursery.start_soon(_start_and_fail, pen)
        await settle()
        begin = trio.current_time()
        assert await pen.start_child("quick") == 1
        assert trio.current_time() == begin


async def _start_and_fail(pen: object) -> None:
    with pytest.raises(ChildStartFailed):
        await pen.start_child("slow")  # type: ignore[attr-defined]  # a DynamicSupervisor


# S-524
async def test_the_intensity_counts_for_all_of_them(harness: Harness) -> None:
    pen = harness.dynamic(lambda name: harness.spec(name, backoff=NO_BACKOFF), intensity=1)
    with pytest.raises(RestartIntensityExceeded):
        async with harness.running(pen):
            await pen.start_child("a")
            await pen.start_child("b")
            harness["a"].crash()
            await settle()
            harness["b"].crash()
            await settle()
    assert harness.incarnations() == {"a": 2, "b": 1}


async def test_a_new_child_object_is_made_for_each_start(harness: Harness) -> None:
    made: list[str] = []

    def template(name: str) -> ChildSpec:
        made.append(name)
        return harness.spec(name)

    pen = harness.dynamic(template)
    async with harness.running(pen):
        await pen.start_child("a")
        harness["a"].crash()
        await settle()
        assert made == ["a"]
