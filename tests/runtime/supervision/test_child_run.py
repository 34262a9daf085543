"""The wrapper around one life of a child: no exception out, exactly one record."""

# a virtual clock works by being asked for

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from runtime.child import Exit, ExitReason
from runtime.errors import Fatal, Ignore, unwrap_group
from runtime.supervision.child_run import ChildRun, fatal_in
from runtime.supervision.supervisor import ChildrenUnstopped, EndedInOrder
from tests.runtime.supervision.misbehaving import Boom, Harness, Misbehaving, Start, Stop, settle


class Record:
    """One incarnation and what it reported."""

    def __init__(self, child: Misbehaving) -> None:
        self.child = child
        self.serving = 0
        self.ends: list[Exit] = []
        self.gone = 0
        self.incarnation = ChildRun(child, 1, on_started=self._serves, on_end=lambda _, end: self.ends.append(end))
        self.incarnation.when_ended(self._is_gone)

    def _serves(self, _: ChildRun) -> None:
        self.serving += 1

    def _is_gone(self, _: ChildRun) -> None:
        self.gone += 1

    @property
    def end(self) -> Exit:
        """The one end; both the child and the supervisor were told."""
        assert self.child.exits == self.ends
        (end,) = self.ends
        return end


async def live(record: Record, *steps: Callable[[], None]) -> Exit:
    """Let it live; take each step once everything is quiet; wait for the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record.incarnation.run)
        for step in steps:
            await settle()
            step()
    return record.end


@pytest.fixture
async def record(harness: Harness) -> Record:
    return Record(harness.child("a"))


async def test_returning_is_a_normal_end(record: Record) -> None:
    end = await live(record, record.child.finish)
    assert (end.reason, end.error, end.name, end.incarnation) == (ExitReason.NORMAL, None, "a", 1)
    assert record.serving == 1


# S-408
async def test_raising_is_a_crash_and_does_not_come_out(record: Record) -> None:
    record.child.message = "Work"
    end = await live(record, record.child.crash)
    assert end.reason is ExitReason.CRASHED
    assert isinstance(end.error, Boom)
    assert end.last_message == "Work"


# S-408
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
async def test_what_is_no_exception_does_not_come_out_either(record: Record, error: BaseException) -> None:
    end = await live(record, lambda: record.child.crash(error))
    assert end.reason is ExitReason.CRASHED
    assert end.error is error
    assert fatal_in(end.error) is None


async def test_a_kill_interrupts_and_says_so(record: Record) -> None:
    end = await live(record, lambda: record.incarnation.kill("because"))
    assert (end.reason, end.error, end.detail) == (ExitReason.KILLED, None, "because")


async def test_a_kill_before_the_first_step_lets_nothing_slip_through(record: Record) -> None:
    record.incarnation.kill("early")
    end = await live(record)
    assert end.reason is ExitReason.KILLED
    assert record.serving == 0


async def test_a_stop_that_is_obeyed_is_a_shutdown(record: Record) -> None:
    record.incarnation.stop_asked = False

    def stop() -> None:
        record.incarnation.stop_asked = True
        record.child.finish()

    assert (await live(record, stop)).reason is ExitReason.SHUTDOWN


async def test_an_incarnation_stopped_before_its_first_step_never_runs(record: Record) -> None:
    record.incarnation.stop_asked = True
    end = await live(record)
    assert end.reason is ExitReason.SHUTDOWN
    assert record.child.incarnations == []


@pytest.mark.parametrize(
    ("start", "reason", "error"),
    [
        (Start.FAIL, ExitReason.START_FAILED, Boom),
        (Start.RETURN, ExitReason.START_FAILED, None),
        (Start.IGNORE, ExitReason.IGNORED, Ignore),
        (Start.SERVE_AND_CRASH, ExitReason.CRASHED, Boom),
        (Fatal("no"), ExitReason.CRASHED, Fatal),
        (EndedInOrder("done"), ExitReason.START_FAILED, EndedInOrder),
    ],
)
async def test_how_a_start_can_end(
    record: Record, start: Start | BaseException, reason: ExitReason, error: type[BaseException] | None
) -> None:
    record.child.starts.append(start)
    end = await live(record)
    assert end.reason is reason
    assert (type(end.error) if end.error is not None else None) is error


async def test_a_start_that_takes_too_long_fails(record: Record) -> None:
    record.child.starts.append(Start.HANG)
    end = await live(record, lambda: record.incarnation.fail_start("too slow"))
    assert (end.reason, end.detail) == (ExitReason.START_FAILED, "too slow")


async def test_serving_after_the_start_was_given_up_is_void(record: Record) -> None:
    record.child.starts.append(Start.SWALLOW)
    end = await live(record, lambda: record.incarnation.fail_start("too slow"), record.child.release)
    assert end.reason is ExitReason.START_FAILED
    assert record.serving == 0


async def test_a_start_that_is_over_cannot_fail_any_more(record: Record) -> None:
    end = await live(record, lambda: record.incarnation.fail_start("too slow"), record.child.finish)
    assert end.reason is ExitReason.NORMAL


async def test_an_end_by_own_decision_is_a_shutdown(record: Record) -> None:
    end = await live(record, lambda: record.child.crash(EndedInOrder("done")))
    assert end.reason is ExitReason.SHUTDOWN


async def test_unstopped_children_below_make_it_unstopped_even_if_it_was_killed(record: Record) -> None:
    record.incarnation.kill_reason = "cut short"
    end = await live(record, lambda: record.child.crash(ChildrenUnstopped("a", ())))
    assert end.reason is ExitReason.UNSTOPPED


async def test_an_abandoned_incarnation_has_one_record_and_tells_when_it_is_gone(harness: Harness) -> None:
    record = Record(harness.child("a", stop=Stop.SWALLOW))

    def abandon() -> None:
        record.ends.append(record.incarnation.record_unstopped("it ignores cancellation"))
        assert record.incarnation.stack().startswith("task ")
        assert record.gone == 0

    end = await live(record, lambda: record.incarnation.kill("stop"), abandon, record.child.release)
    assert end.reason is ExitReason.UNSTOPPED
    assert record.gone == 1
    assert record.incarnation.stack() == ""


async def test_when_gone_answers_at_once_for_a_task_that_has_ended(record: Record) -> None:
    await live(record, record.child.finish)
    calls: list[ChildRun] = []
    record.incarnation.when_ended(calls.append)
    assert calls == [record.incarnation]


async def test_cancellation_from_outside_does_not_reach_the_child(record: Record) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record.incarnation.run)
            await settle()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await settle()
                assert record.ends == []
                record.child.finish()
    assert record.end.reason is ExitReason.NORMAL


# S-408
async def test_the_exit_hook_runs_before_anything_else_is_awaited(harness: Harness) -> None:
    record = Record(harness.child("a"))
    await live(record, record.child.crash)
    assert harness.journal == ["start a", "up a", "end a", "exit a"]


async def test_a_hook_that_raises_does_not_cost_the_record(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Exit) -> None:
        raise Boom("hook")

    monkeypatch.setattr(record.child, "on_exit", broken)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record.incarnation.run)
        await settle()
        record.child.finish()
    assert [end.reason for end in record.ends] == [ExitReason.NORMAL]
    assert isinstance(record.incarnation.hook_error, Boom)


async def test_serving_twice_is_a_bug_that_crashes(record: Record) -> None:
    def again() -> None:
        with pytest.raises(RuntimeError, match="twice"):
            record.incarnation.started()
        record.child.finish()

    await live(record, again)


async def test_the_life_is_measured_from_the_begin_of_the_start(
    record: Record, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(record.incarnation.run)
        await trio.sleep(7.0)
        record.child.finish()
    assert record.end.lived == 7.0


def test_groups_of_one_are_unwrapped_and_others_kept() -> None:
    leaf = Boom("a")
    both = ExceptionGroup("two", [leaf, Boom("b")])
    assert unwrap_group(ExceptionGroup("one", [ExceptionGroup("one", [leaf])])) is leaf
    assert unwrap_group(both) is both
    assert unwrap_group(leaf) is leaf


def test_a_fatal_error_is_found_among_others() -> None:
    fatal = Fatal("stop")
    assert fatal_in(ExceptionGroup("two", [Boom("a"), ExceptionGroup("inner", [fatal])])) is fatal
    assert fatal_in(Boom("a")) is None
    assert fatal_in(None) is None
