"""An actor that swallows its cancellation: reported, parked, never started beside itself; exit status 75."""

from __future__ import annotations

import re

from tests.watchdog.watched_process import LONG, watched


def swallower(seconds: float) -> str:
    return f"""
[actor.auto_renewal]
actor = "{{actors}}:Swallower"
kill_grace = 0.4
shutdown = 0.4
args = {{{{ interval = 0.2, start_jitter = [0.0, 0.0], seconds = {seconds} }}}}
"""


async def test_one_that_ends_within_the_grace_is_restarted_like_any_other() -> None:
    async with watched(swallower(0.1), worker_stale=LONG) as process:
        await process.out.until("auto_renewal waits")
        await process.call("kill", name="auto_renewal")
        await process.out.until("auto_renewal started (incarnation 2")
        assert "ignores cancellation" not in process.err
        assert await process.stop() == 0


async def test_one_that_does_not_end_is_reported_with_its_stack_and_parked_others_serve() -> None:
    async with watched(swallower(0), worker_stale=LONG) as process:
        await process.out.until("auto_renewal waits")
        await process.call("kill", name="auto_renewal")
        line = await process.err.until("and ignores cancellation")
        assert re.search(r"auto_renewal did not stop within 0\.\d s .*incarnation 1, last message Begin", line)
        await process.err.until("auto_renewal is parked: it ignores cancellation; nothing is started beside it")
        status = await process.call("status")
        (child,) = [child for child in status["children"] if child["name"] == "auto_renewal"]
        assert (child["state"], child["incarnation"], child["restarts"]) == ("unstopped", 1, 0)
        assert status["unstopped"] == ["auto_renewal"]
        assert "stand_still" in str(await process.events()), "the stack is in the event"
        assert await process.stop() == 75


async def test_one_that_the_watchdog_found_is_parked_once_and_left_out_from_then_on() -> None:
    """All three beats stale cannot follow: what is parked is out of the worker beat, and the loop turns."""
    text = """
[actor.late]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [3.5, 3.5], stuck = true }}
"""
    async with watched(swallower(0) + text) as process:
        await process.err.until("worker auto_renewal is")
        await process.err.until("auto_renewal is parked: it ignores cancellation")
        await process.out.until("worker late is fresh again")  # two limits later
        assert process.err.text.count("worker auto_renewal is") == 1
        assert "cannot be restarted" not in process.out
        incarnations = await process.incarnations()
        assert (incarnations["auto_renewal"], incarnations["ticker"]) == (1, 1)
        assert await process.stop() == 75
