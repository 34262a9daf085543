from __future__ import annotations

import pytest

from runtime.errors import ActorCrashed, Killed
from runtime.failpoints import FailpointReport, Failpoints
from runtime.testing.system import OnCrash, actor_system
from tests.runtime.messages import GetNotes, Note, Scribe, World


def test_nothing_is_counted_until_it_is_switched_on() -> None:
    failpoints = Failpoints()
    assert failpoints.enabled is False
    failpoints.arm("a", "here")
    assert failpoints.enabled is True


def test_it_fires_once_at_the_nth_visit_since_the_arming() -> None:
    failpoints = Failpoints(enabled=True)
    failpoints.visit("a", "here")
    failpoints.arm("a", "here", nth=2)
    failpoints.visit("a", "here")
    with pytest.raises(Killed, match="'a' was killed at its failpoint 'here'"):
        failpoints.visit("a", "here")
    failpoints.visit("a", "here")
    assert failpoints.report() == [FailpointReport("a", "here", armed_for=None, visited=4, fired=1)]


def test_it_fires_for_its_actor_and_point_only() -> None:
    failpoints = Failpoints()
    failpoints.arm("a", "here")
    failpoints.visit("b", "here")
    failpoints.visit("a", "there")
    assert [(each.actor, each.point, each.armed_for) for each in failpoints.report()] == [
        ("a", "here", 1),
        ("a", "there", None),
        ("b", "here", None),
    ]


@pytest.mark.parametrize(
    ("actor", "point", "left"),
    [("a", "x", ["ay", "bx"]), ("a", None, ["bx"]), (None, "x", ["ay"]), (None, None, [])],
)
def test_disarming_takes_back_a_point_or_an_actors_points_or_all(
    actor: str | None, point: str | None, left: list[str]
) -> None:
    failpoints = Failpoints()
    for name, where in (("a", "x"), ("a", "y"), ("b", "x")):
        failpoints.arm(name, where)
    failpoints.disarm(actor, point)
    assert [each.actor + each.point for each in failpoints.report() if each.armed_for] == left


def test_the_report_is_a_copy() -> None:
    failpoints = Failpoints(enabled=True)
    failpoints.visit("a", "here")
    failpoints.report()[0].visited = 100
    assert failpoints.report()[0].visited == 1


def test_clearing_forgets_and_stops_counting() -> None:
    failpoints = Failpoints()
    failpoints.arm("a", "here")
    failpoints.clear()
    assert (failpoints.enabled, failpoints.report()) == (False, [])


def test_a_visit_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="nth counts from 1"):
        Failpoints().arm("a", "here", nth=0)


async def test_after_a_message_is_before_its_reply_leaves() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)
        system.services.failpoints.arm("scribe", "after:GetNotes")
        with pytest.raises(ActorCrashed) as caught:
            await ref.ask(GetNotes(), within=5)
        assert isinstance(caught.value.__cause__, Killed)


async def test_every_message_boundary_is_counted_while_counting_is_on() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        ref.tell(Note(1))
        assert await ref.ask(GetNotes(), within=1) == (1,)
        assert system.services.failpoints.report() == []
        system.services.failpoints.enabled = True
        ref.tell(Note(2))
        ref.tell(Note(3))
        assert await ref.ask(GetNotes(), within=1) == (1, 2, 3)
        assert {each.point: each.visited for each in system.services.failpoints.report()} == {
            "before:Note": 2,
            "after:Note": 2,
            "before:GetNotes": 1,
            "after:GetNotes": 1,
        }
