"""What `atlas check` computes about a tree before it runs."""

# a virtual clock works by being asked for

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtime.child import Child, ChildSpec, GiveUp, Restart, Strategy
from runtime.restart_limits import NO_BACKOFF, Backoff
from runtime.supervision.spec_checks import (
    SpecTree,
    check_limit,
    start_order,
    time_to_give_up,
    worst_case_kill,
    worst_case_shutdown,
)
from runtime.supervision.supervisor import RestartIntensityExceeded, SpecError, Supervisor
from tests.runtime.supervision.misbehaving import Harness, Start, Stop


def never_started() -> Child:
    raise AssertionError("nothing is started here")


PLAIN = Backoff(initial=1.0, factor=2.0, maximum=30.0, jitter=0.0)


def worker(harness: Harness, name: str, **settings: Any) -> SpecTree:
    return SpecTree(harness.spec(name, **settings))


def above(harness: Harness, *children: SpecTree, parallel: bool = False, **settings: Any) -> SpecTree:
    return SpecTree(
        harness.spec("above", **{"shutdown": math.inf, "kind": "supervisor", **settings}), children, parallel
    )


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        ({}, "abcd"),
        ({"a": "b"}, "bacd"),
        ({"a": "d"}, "bcda"),
        ({"b": "d", "c": "a"}, "acdb"),
        ({"a": "bcd", "b": "cd", "c": "d"}, "dcba"),
        ({"d": "a"}, "abcd"),
    ],
)
def test_the_order_is_that_of_declaration_changed_only_where_needs_demand_it(
    harness: Harness, needs: dict[str, str], order: str
) -> None:
    specs = [harness.spec(name, needs=tuple(needs.get(name, ""))) for name in "abcd"]
    assert "".join(spec.name for spec in start_order(specs)) == order


def test_a_child_that_needs_itself_is_a_circle(harness: Harness) -> None:
    with pytest.raises(SpecError, match="a -> a"):
        start_order([harness.spec("a", needs=("a",))])


def test_the_longest_shutdown_is_the_sum_over_children_each_with_its_grace(harness: Harness) -> None:
    one, other = worker(harness, "a", shutdown=5.0, kill_grace=1.0), worker(harness, "b", shutdown=2.0, kill_grace=0.5)
    assert worst_case_shutdown(one) == 6.0
    assert worst_case_shutdown(above(harness, one, other)) == 8.5
    assert worst_case_shutdown(above(harness, one, other, parallel=True)) == 6.0
    assert worst_case_shutdown(above(harness)) == 0.0


def test_a_supervisor_with_less_time_than_its_children_is_killed_with_them(harness: Harness) -> None:
    one = worker(harness, "a", shutdown=50.0, kill_grace=3.0)
    assert worst_case_shutdown(above(harness, one, shutdown=10.0, kill_grace=1.0)) == 13.0
    assert worst_case_kill(above(harness, one, kill_grace=1.0)) == 3.0


def test_endless_patience_below_is_endless_above(harness: Harness) -> None:
    assert worst_case_shutdown(above(harness, worker(harness, "a", shutdown=math.inf))) == math.inf


async def test_the_longest_shutdown_is_what_it_takes_if_nobody_obeys(
    harness: Harness, autojump_clock: MockClock
) -> None:
    specs = [
        harness.spec(name, stop=Stop.SWALLOW, shutdown=shutdown, kill_grace=grace)
        for name, shutdown, grace in (("a", 5.0, 1.0), ("b", 2.0, 0.5), ("c", 0.0, 3.0))
    ]
    supervisor = harness.supervisor(*specs)
    expected = worst_case_shutdown(above(harness, *map(SpecTree, specs)))
    begin = trio.current_time()
    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, 1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(expected - 0.1)
                assert len(supervisor.unstopped) == 2
                await trio.sleep(0.2)
                assert len(supervisor.unstopped) == 3
            for child in harness.children.values():
                child.release()
    assert trio.current_time() - begin == pytest.approx(expected + 0.1)


@pytest.mark.parametrize(
    ("intensity", "period", "expected"),
    [
        (0, 60.0, 0.0),
        (1, 60.0, 0.0),
        (2, 60.0, 1.0),
        (5, 60.0, 0 + 1 + 2 + 4 + 8),
        (5, 15.0, 15.0),
        (5, 14.9, math.inf),
        (10, 60.0, math.inf),
    ],
)
def test_the_time_to_give_up_is_the_sum_of_the_delays_if_they_fit_into_the_period(
    intensity: int, period: float, expected: float
) -> None:
    assert time_to_give_up(intensity, period, PLAIN) == expected


def test_chance_and_slow_attempts_lengthen_it() -> None:
    assert time_to_give_up(3, 60.0, Backoff(initial=1.0, jitter=0.5), longest=True) == 4.5
    assert time_to_give_up(3, 60.0, NO_BACKOFF, attempt_takes=10.0) == 30.0
    assert time_to_give_up(3, 20.0, NO_BACKOFF, attempt_takes=10.0) == math.inf


@pytest.mark.parametrize(("intensity", "period"), [(1, 60.0), (3, 60.0), (5, 60.0), (5, 15.0)])
async def test_a_child_that_always_crashes_gives_up_when_computed(
    harness: Harness, autojump_clock: MockClock, intensity: int, period: float
) -> None:
    expected = time_to_give_up(intensity, period, PLAIN)
    supervisor = harness.supervisor(harness.spec("a", backoff=PLAIN), intensity=intensity, period=period)
    harness["a"].starts.extend([Start.SERVE_AND_CRASH] * 100)
    begin = trio.current_time()
    with pytest.raises(RestartIntensityExceeded):
        await supervisor.run(1)
    assert trio.current_time() - begin == pytest.approx(expected)


async def test_a_limit_said_to_be_out_of_reach_is_out_of_reach(harness: Harness, autojump_clock: MockClock) -> None:
    assert time_to_give_up(5, 14.0, PLAIN) == math.inf
    supervisor = harness.supervisor(harness.spec("a", backoff=PLAIN), intensity=5, period=14.0)
    harness["a"].starts.extend([Start.SERVE_AND_CRASH] * 10_000)
    with trio.move_on_after(10_000.0):
        await supervisor.run(1)
    assert len(harness["a"].served) > 300


def limited(give_up: GiveUp, backoff: Backoff) -> ChildSpec:
    return ChildSpec("a", lambda: pytest.fail("not started"), give_up=give_up, backoff=backoff)


# S-1107
@pytest.mark.parametrize("give_up", [GiveUp.ESCALATE, GiveUp.PARK])
def test_a_limit_that_the_backoff_puts_out_of_reach_is_refused(give_up: GiveUp) -> None:
    with pytest.raises(SpecError, match=r"5 restarts take up to 15\.0 s.*set period above 15 s"):
        check_limit(limited(give_up, PLAIN), 5, 14.0)
    check_limit(limited(give_up, PLAIN), 5, 15.0)


def test_a_child_that_never_gives_up_needs_no_reachable_limit() -> None:
    check_limit(limited(GiveUp.NEVER, PLAIN), 5, 1.0)


def test_the_defaults_can_give_up() -> None:
    check_limit(limited(GiveUp.ESCALATE, Backoff()), 5, 60.0)


# S-533
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "one_for_none"}, "'one_for_none' is no Strategy; legal values: 'one_for_one', "),
        ({"auto_shutdown": "sometimes"}, "'sometimes' is no AutoShutdown; legal values: 'never', "),
        ({"intensity": math.inf}, "intensity is a number of restarts of at least 0, got inf"),
        ({"intensity": -1}, "intensity is a number of restarts of at least 0, got -1"),
        ({"period": 0.0}, "period is a positive number of seconds"),
    ],
)
def test_a_supervisor_refuses_what_is_no_setting_also_without_children(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Supervisor("top", [], **wrong)


# S-533
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"restart": "sometimes"}, "'sometimes' is no Restart; legal values: 'permanent', 'transient', 'temporary'"),
        ({"give_up": "soon"}, "'soon' is no GiveUp; legal values: 'escalate', 'park', 'never'"),
        ({"kind": "boss"}, "kind"),
    ],
)
def test_a_spec_refuses_what_is_no_setting(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ChildSpec("a", never_started, **wrong)


# S-533
def test_a_value_as_in_a_configuration_is_its_member() -> None:
    spec = ChildSpec("a", never_started, restart="temporary", give_up="park")
    assert (spec.restart, spec.give_up) == (Restart.TEMPORARY, GiveUp.PARK)
    assert spec.restart is Restart.TEMPORARY
    flags = Supervisor("top", [], strategy="rest_for_one").settings  # type: ignore[arg-type]  # as above
    assert flags.strategy is Strategy.REST_FOR_ONE


# S-533
def test_a_factory_that_makes_no_child_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="the spec 'a' made no child: its start returned NoneType"):
        Supervisor("top", [ChildSpec("a", lambda: None)])  # type: ignore[arg-type, return-value]  # that is what is wrong


# S-533
def test_a_nested_supervisor_has_no_limit_to_stop_unless_it_is_given_one() -> None:
    assert ChildSpec("a", never_started).shutdown == 5.0
    assert ChildSpec("a", never_started, kind="supervisor").shutdown == math.inf
    assert ChildSpec("a", never_started, kind="supervisor", shutdown=3.0).shutdown == 3.0
