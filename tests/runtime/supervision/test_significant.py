"""Significant children and automatic shutdown."""

from __future__ import annotations

import pytest
import trio

from runtime.child import AutoShutdown, ChildSpec, ExitReason, Restart, Strategy
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.supervisor import ChildState, SpecError
from tests.runtime.supervision.misbehaving import Harness, Misbehaving, Outcome, settle

ANY, ALL = AutoShutdown.ANY_SIGNIFICANT, AutoShutdown.ALL_SIGNIFICANT
TRANSIENT, TEMPORARY = Restart.TRANSIENT, Restart.TEMPORARY


async def ends(harness: Harness, mode: AutoShutdown, restart: Restart, *steps: tuple[str, str]) -> bool:
    """Whether a supervisor of the significant a and b and the plain c has ended after these steps."""
    supervisor = harness.supervisor(
        harness.spec("a", restart=restart, significant=True, backoff=NO_BACKOFF),
        harness.spec("b", restart=restart, significant=True),
        harness.spec("c", restart=Restart.TRANSIENT),
        auto_shutdown=mode,
    )
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        await nursery.start(outcome.collect, supervisor)
        for name, what in steps:
            child: Misbehaving = harness[name]
            match what:
                case "finish":
                    child.finish()
                case "crash":
                    child.crash()
                case _:
                    await supervisor.terminate_child(name)
            await settle()
        ended = outcome.ended.is_set()
        nursery.cancel_scope.cancel()
    assert outcome.error is None
    return ended


# S-518
@pytest.mark.parametrize(
    ("mode", "restart", "steps", "expected"),
    [
        (ANY, TRANSIENT, [("a", "finish")], True),
        (ANY, TRANSIENT, [("a", "crash")], False),
        (ANY, TRANSIENT, [("c", "finish")], False),
        (ANY, TRANSIENT, [("a", "terminate")], False),
        (ANY, TEMPORARY, [("a", "finish")], True),
        (ANY, TEMPORARY, [("a", "crash")], True),
        (ANY, TEMPORARY, [("a", "terminate")], False),
        (ALL, TRANSIENT, [("a", "finish")], False),
        (ALL, TRANSIENT, [("a", "finish"), ("b", "finish")], True),
        (ALL, TRANSIENT, [("a", "crash"), ("b", "finish")], False),
        (ALL, TRANSIENT, [("a", "terminate"), ("b", "finish")], True),
        (ALL, TRANSIENT, [("a", "finish"), ("b", "terminate")], False),
        (ALL, TEMPORARY, [("a", "crash"), ("b", "crash")], True),
        (ALL, TEMPORARY, [("a", "crash"), ("c", "finish")], False),
    ],
)
async def test_the_end_of_significant_children_by_themselves_ends_their_supervisor(
    harness: Harness, mode: AutoShutdown, restart: Restart, steps: list[tuple[str, str]], expected: bool
) -> None:
    assert await ends(harness, mode, restart, *steps) is expected


# S-518
async def test_the_others_are_stopped_in_order(harness: Harness) -> None:
    supervisor = harness.supervisor(
        harness.spec("a"),
        harness.spec("b", restart=TRANSIENT, significant=True),
        harness.spec("c"),
        auto_shutdown=ANY,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, 1)
        harness.journal.clear()
        harness["b"].finish()
    assert [line for line in harness.journal if line.startswith("stop")] == ["stop c", "stop a"]
    assert harness["a"].reasons == [ExitReason.SHUTDOWN]


async def test_a_temporary_child_dropped_by_a_group_restart_does_not_end_the_supervisor(harness: Harness) -> None:
    supervisor = harness.supervisor(
        harness.spec("a"),
        harness.spec("b", restart=TEMPORARY, significant=True),
        auto_shutdown=ANY,
        strategy=Strategy.ONE_FOR_ALL,
    )
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        assert [info.name for info in supervisor.which_children()] == ["a"]
        assert harness.incarnations() == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("restart", "state"), [(Restart.TRANSIENT, ChildState.DOWN), (Restart.PERMANENT, ChildState.RUNNING)]
)
async def test_a_nested_supervisor_that_shut_itself_down_is_a_normal_end(
    harness: Harness, restart: Restart, state: ChildState
) -> None:
    inner = harness.supervisor(harness.spec("b", restart=TRANSIENT, significant=True), name="inner", auto_shutdown=ANY)
    top = harness.supervisor(harness.spec("a"), harness.nested(inner, restart=restart))
    async with harness.running(top):
        harness["b"].finish()
        await settle()
        assert {info.name: info.state for info in top.which_children()} == {"a": ChildState.RUNNING, "inner": state}


# S-527
def test_significance_without_automatic_shutdown_is_refused(harness: Harness) -> None:
    with pytest.raises(SpecError, match="auto_shutdown"):
        harness.supervisor(harness.spec("a", restart=TRANSIENT, significant=True))


# S-527
def test_a_permanent_child_is_never_significant(harness: Harness) -> None:
    child = harness.child("a")
    with pytest.raises(ValueError, match="permanent"):
        ChildSpec("a", lambda: child, significant=True)
