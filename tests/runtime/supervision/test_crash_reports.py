"""What is kept of a crash: a report, and nothing of the dead incarnation; and who is told where nobody said so."""

from __future__ import annotations

import gc
import logging
import weakref

import attrs
import pytest
import trio

from runtime import NO_BACKOFF, Actor, Address, Message, Services, Supervisor, handler
from runtime.child import ChildSpec as Spec
from runtime.child import ExitReason, StopCause, StopReason
from runtime.events import Event
from runtime.supervision.events import ChildExited
from tests.runtime.supervision.misbehaving import Harness, settle

SHUTDOWN = StopReason(StopCause.SHUTDOWN, "the test is over")


@attrs.frozen
class Crash(Message):
    how: str = "plain"


@attrs.define(eq=False)
class Fragile(Actor):
    """Role: crashes. Owns a large state. On crash: that is tested."""

    born: list[weakref.ref[Fragile]]
    state: int = attrs.field(init=False, default=7)

    async def on_start(self) -> None:
        self.born.append(weakref.ref(self))

    @handler
    async def crash(self, message: Crash) -> None:
        """With this very instance in the frames, the arguments and the context of the error."""
        mine = self
        try:
            raise KeyError(mine)  # noqa: TRY301  # it is to have a context
        except KeyError as error:
            if message.how == "group":
                raise ExceptionGroup("two", [ValueError(self), error]) from error
            raise RuntimeError("crashed") from error

    def inspect(self) -> dict[str, object]:
        return {"state": self.state}


# S-416
@pytest.mark.parametrize("how", ["plain", "group"])
async def test_nothing_of_a_dead_incarnation_lives_on_in_what_is_kept_of_it(how: str) -> None:
    services, born = Services(), []  # type: ignore[var-annotated]  # of what is in it
    address = Address("fragile", lambda: Fragile(born), services)
    supervisor = Supervisor("top", [Spec("fragile", lambda: address, backoff=NO_BACKOFF)], emit=services.events.emit)
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, 1)
            address.ref.tell(Crash(how))
            while len(born) < 2:
                await trio.lowlevel.checkpoint()
            await settle()
            (info,) = supervisor.which_children()
            gc.collect(0)
            assert born[0]() is None
            assert info.last_exit is not None
            assert (info.last_exit.reason, info.last_exit.error) == (ExitReason.CRASHED, None)
            report = info.last_exit.report
            assert report is not None
            assert report.state == {"state": 7}
            assert report.where.endswith("in Fragile.crash")
            supervisor.request_stop(SHUTDOWN)
    finally:
        gc.enable()


# S-416
@pytest.mark.parametrize("reason", ["killed", "start_failed", "crashed"])
async def test_each_abnormal_end_is_one_report_and_an_end_in_order_none(harness: Harness, reason: str) -> None:
    supervisor = harness.supervisor(*map(harness.spec, "ab"))
    async with harness.running(supervisor):
        match reason:
            case "killed":
                supervisor.kill_child("a", "test")
            case "crashed":
                harness["a"].crash()
            case _:
                harness["a"].starts.append(ValueError("no start"))
                harness["a"].crash()
        await settle()
        ends = [event for event in harness.events if isinstance(event, ChildExited)]
        reports = [event.report for event in ends]
        assert reports
        assert all(report is not None and report.actor == "a" for report in reports)
        assert reason in [report.reason for report in reports if report is not None]
        await supervisor.terminate_child("b")
    quiet = [event for event in harness.events if isinstance(event, ChildExited) and event.actor == "b"]
    assert [event.report for event in quiet] == [None]


# S-532
async def test_a_supervisor_without_emit_logs_crashes_with_their_traceback(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    child = harness.spec("a")
    supervisor = Supervisor("alone", [child])
    with caplog.at_level(logging.INFO, logger="atlas.events"):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run, 1)
            harness["a"].crash()
            await settle()
            supervisor.request_stop(SHUTDOWN)
    (crash,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert crash.message.startswith("a crashed after")
    assert "\n    Traceback (most recent call last):" in crash.message


# S-532
async def test_a_nested_supervisor_without_emit_tells_the_one_above_it(harness: Harness) -> None:
    told: list[Event] = []
    inner = Supervisor("inner", [harness.spec("b")])
    top = Supervisor("top", [Spec("inner", lambda: inner, kind="supervisor")], emit=told.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(top.run, 1)
        harness["b"].crash()
        await settle()
        top.request_stop(SHUTDOWN)
    (crash,) = [event for event in told if isinstance(event, ChildExited) and event.reason == "crashed"]
    assert (crash.actor, crash.supervisor) == ("b", "inner")
