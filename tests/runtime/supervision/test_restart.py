"""Restart types and strategies: who comes back after which end, and who goes with it."""

# a virtual clock works by being asked for

from __future__ import annotations

import re

import pytest
import trio

from runtime.child import ExitReason, Restart, StopCause, Strategy
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.events import ChildEnded, ChildExited, ChildRestarting, Decision
from runtime.supervision.supervisor import ChildState
from tests.runtime.supervision.misbehaving import Boom, Harness, Start, Stop, settle

MEMBERS = ("a", "b", "c", "d")


def states(supervisor: object) -> dict[str, ChildState]:
    return {info.name: info.state for info in supervisor.which_children()}  # type: ignore[attr-defined]  # either kind


# S-501
async def test_children_start_in_order_and_stop_in_reverse(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b"), harness.spec("c"))
    async with harness.running(supervisor):
        assert harness.journal == ["start a", "up a", "start b", "up b", "start c", "up c"]
        harness.journal.clear()
    assert harness.journal == [f"{what} {name}" for name in "cba" for what in ("stop", "end", "exit")]
    assert [child.reasons for child in harness.children.values()] == [[ExitReason.SHUTDOWN]] * 3
    assert [child.finals for child in harness.children.values()] == [["supervisor top stopped"]] * 3


# S-502
@pytest.mark.parametrize(
    ("restart", "how", "comes_back"),
    [
        (Restart.PERMANENT, "crash", True),
        (Restart.PERMANENT, "kill", True),
        (Restart.PERMANENT, "finish", True),
        (Restart.TRANSIENT, "crash", True),
        (Restart.TRANSIENT, "kill", True),
        (Restart.TRANSIENT, "finish", False),
        (Restart.TEMPORARY, "crash", False),
        (Restart.TEMPORARY, "kill", False),
        (Restart.TEMPORARY, "finish", False),
    ],
)
async def test_the_restart_type_decides_what_follows_which_end(
    harness: Harness, restart: Restart, how: str, comes_back: bool
) -> None:
    supervisor = harness.supervisor(harness.spec("a", restart=restart), harness.spec("b"))
    async with harness.running(supervisor):
        match how:
            case "crash":
                harness["a"].crash()
            case "kill":
                supervisor.kill_child("a", "test")
            case _:
                harness["a"].finish()
        await settle()
        assert harness.incarnations() == {"a": 2 if comes_back else 1, "b": 1}
        if comes_back:
            assert states(supervisor) == {"a": ChildState.RUNNING, "b": ChildState.RUNNING}
            assert harness["a"].finals == []
        elif restart is Restart.TRANSIENT:
            assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
            assert len(harness["a"].finals) == 1
        else:
            assert states(supervisor) == {"b": ChildState.RUNNING}
            assert len(harness["a"].finals) == 1


# S-503
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ONE_FOR_ONE, {"a": 1, "b": 2, "c": 1, "d": 1}),
        (Strategy.ONE_FOR_ALL, {"a": 2, "b": 2, "c": 2, "d": 2}),
        (Strategy.REST_FOR_ONE, {"a": 1, "b": 2, "c": 2, "d": 2}),
    ],
)
async def test_the_strategy_decides_whom_a_crash_takes_along(
    harness: Harness, strategy: Strategy, expected: dict[str, int]
) -> None:
    supervisor = harness.supervisor(*map(harness.spec, MEMBERS), strategy=strategy)
    async with harness.running(supervisor):
        harness["b"].crash()
        await settle()
        assert harness.incarnations() == expected
        assert set(states(supervisor).values()) == {ChildState.RUNNING}


# S-504
async def test_a_group_restart_stops_in_reverse_order_then_starts_in_order(harness: Harness) -> None:
    supervisor = harness.supervisor(*map(harness.spec, MEMBERS), strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness.journal.clear()
        harness["b"].crash()
        await settle()
        stops = [f"{what} {name}" for name in "dca" for what in ("stop", "end", "exit")]
        starts = [f"{what} {name}" for name in "abcd" for what in ("start", "up")]
        assert harness.journal == ["end b", "exit b", *stops, *starts]
    assert [end.reason for end in harness["a"].exits] == [ExitReason.SHUTDOWN, ExitReason.SHUTDOWN]
    assert harness["a"].stop_reasons[0].cause is StopCause.RESTART
    assert "b" in harness["a"].stop_reasons[0].detail


# S-505
async def test_a_group_restart_counts_one_attempt_and_names_the_group(harness: Harness) -> None:
    supervisor = harness.supervisor(
        *map(harness.spec, MEMBERS), strategy=Strategy.REST_FOR_ONE, intensity=1, period=1000.0
    )
    async with harness.running(supervisor):
        harness["b"].crash()
        await settle()
        (event,) = harness.events_of(ChildRestarting)
        assert (event.actor, event.group, event.restart) == ("b", ("c", "d"), 1)
        decisions = {event.actor: event.decision for event in harness.events_of(ChildExited)}
        assert decisions == {
            "b": Decision.RESTART,
            "c": Decision.RESTART_WITH_GROUP,
            "d": Decision.RESTART_WITH_GROUP,
        }
        assert {event.actor for event in harness.events_of(ChildEnded)} == {"c", "d"}


# S-504
async def test_a_group_restart_drops_temporary_siblings(harness: Harness) -> None:
    supervisor = harness.supervisor(
        harness.spec("a"),
        harness.spec("b", restart=Restart.TEMPORARY),
        harness.spec("c", restart=Restart.TRANSIENT),
        strategy=Strategy.ONE_FOR_ALL,
    )
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 1, "c": 2}
        assert list(states(supervisor)) == ["a", "c"]
        assert len(harness["b"].finals) == 1


# S-504
async def test_a_group_restart_runs_finished_transient_siblings_again_but_no_terminated(harness: Harness) -> None:
    supervisor = harness.supervisor(
        harness.spec("a"),
        harness.spec("setup", restart=Restart.TRANSIENT),
        harness.spec("manual"),
        strategy=Strategy.ONE_FOR_ALL,
    )
    async with harness.running(supervisor):
        harness["setup"].finish()
        await supervisor.terminate_child("manual")
        assert harness.incarnations() == {"a": 1, "setup": 1, "manual": 1}
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "setup": 2, "manual": 1}
        assert states(supervisor)["manual"] is ChildState.DOWN


# S-506
async def test_one_for_all_retries_all_when_a_member_does_not_start(harness: Harness) -> None:
    specs = [harness.spec(name, backoff=NO_BACKOFF) for name in MEMBERS]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["c"].starts.append(Start.FAIL)
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 3, "b": 3, "c": 3, "d": 2}
        assert harness["c"].incarnations == [1, 2, 3]
        assert harness["c"].reasons == [ExitReason.SHUTDOWN, ExitReason.START_FAILED]


# S-506
async def test_rest_for_one_retries_from_the_member_that_does_not_start(harness: Harness) -> None:
    specs = [harness.spec(name, backoff=NO_BACKOFF) for name in MEMBERS]
    supervisor = harness.supervisor(*specs, strategy=Strategy.REST_FOR_ONE)
    async with harness.running(supervisor):
        harness["c"].starts.append(Start.FAIL)
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 2, "c": 3, "d": 2}
        assert set(states(supervisor).values()) == {ChildState.RUNNING}


async def test_a_child_that_declines_at_a_restart_stays_down_and_listed(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"), harness.spec("b"))
    async with harness.running(supervisor):
        harness["a"].starts.append(Start.IGNORE)
        harness["a"].crash()
        await settle()
        assert states(supervisor) == {"a": ChildState.DOWN, "b": ChildState.RUNNING}
        assert harness["a"].reasons == [ExitReason.CRASHED, ExitReason.IGNORED]


# S-505
async def test_a_sibling_that_crashes_while_it_is_taken_along_costs_no_attempt(harness: Harness) -> None:
    specs = [harness.spec("a"), harness.spec("b"), harness.spec("c", stop=Stop.CRASH)]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL, intensity=1)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 2, "b": 2, "c": 2}
        assert harness["c"].reasons == [ExitReason.CRASHED]


async def test_a_stubborn_sibling_is_cancelled_before_the_group_starts(
    harness: Harness, autojump_clock: trio.testing.MockClock
) -> None:
    specs = [harness.spec("a"), harness.spec("b", stop=Stop.IGNORE, shutdown=3.0)]
    supervisor = harness.supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)
    async with harness.running(supervisor):
        harness["a"].crash()
        await settle()
        assert harness.incarnations() == {"a": 1, "b": 1}
        await trio.sleep(2.9)
        assert harness.incarnations() == {"a": 1, "b": 1}
        await trio.sleep(0.2)
        assert harness.incarnations() == {"a": 2, "b": 2}
        assert harness["b"].reasons == [ExitReason.KILLED]
        harness["b"].stop = Stop.OBEY


# S-521
async def test_a_crash_is_reported_with_its_error_and_a_kill_with_its_reason(harness: Harness) -> None:
    supervisor = harness.supervisor(harness.spec("a"))
    async with harness.running(supervisor):
        harness["a"].message = "Work"
        harness["a"].crash(Boom("no luck"))
        await settle()
        supervisor.kill_child("a", "operator said so")
        await settle()
        crashed, killed = harness.events_of(ChildExited)[:2]
        assert (crashed.reason, crashed.error, crashed.last_message) == ("crashed", "Boom: no luck", "Work")
        assert (killed.reason, killed.error, killed.incarnation) == ("killed", "operator said so", 2)
        assert crashed.line().startswith("a crashed after 0.")
        assert crashed.line().endswith(
            f"(incarnation 1, last message Work, at {crashed.where}): Boom: no luck; restart"
        )
        assert re.fullmatch(r".*/misbehaving\.py:\d+ in Misbehaving\._serve", crashed.where)
