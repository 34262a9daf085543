"""One stale worker: found, reported with where it stands, restarted; everybody else is left alone."""

from __future__ import annotations

import re

from tests.watchdog.watched_process import side_by_side, watched

STUCK = """
[actor.activation]
actor = "{{actors}}:Worker"
args = {{{{ interval = 0.2, start_jitter = [0.0, 0.0], stuck = true, seconds = {seconds} }}}}
"""
STARVED = """
[actor.activation]
actor = "{{actors}}:Backlog"
args = {{{{ seconds = {seconds} }}}}
"""
STUCK_ITERATION = """
[actor.activation]
actor = "{actors}:StuckIteration"
args = {{ interval = 0.2, start_jitter = [0.0, 0.0], budget = 600.0 }}
"""
FROZEN_HEALTHCHECK = """
[actor.ticker]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [0.0, 0.1] }}
[actor.healthcheck]
actor = "{actors}:Healthcheck"
args = {{ freezes_at = 3 }}
"""


async def test_a_worker_that_waits_for_less_than_the_limit_is_left_alone() -> None:
    await side_by_side(patient_worker, (STUCK, "goes on"), (STARVED, "has done 3"))


async def patient_worker(actor: str, after: str) -> None:
    async with watched(actor.format(seconds=0.4)) as process:
        await process.out.until("activation waits")
        await process.out.until(f"activation {after}")
        assert set((await process.incarnations()).values()) == {1}
        assert await process.stop() == 0
        assert process.complaints == []


async def test_a_stale_worker_is_reported_and_restarted_and_is_fresh_again() -> None:
    await side_by_side(
        stale_worker,
        (STUCK.format(seconds=0), "overdue|starved", "Begin", "begin"),
        (STARVED.format(seconds=0), "starved", "Work", "work"),
        (STUCK_ITERATION, "stuck", "", "iterate"),
    )


async def stale_worker(actor: str, why: str, message: str, where: str) -> None:
    async with watched(actor) as process:
        stale = await process.err.until("worker activation is")
        assert re.search(rf"worker activation is ({why}) for \d\.\d s", stale)
        assert "restarting it" in stale
        handling = f"handling {message}, " if message else ""
        assert re.search(rf"; {handling}it stands at .*demo_actors\.py:\d+.*\b(stand_still|{where})\b", stale), stale
        killed = await process.err.until("activation killed")
        assert re.search(rf"the watchdog found it ({why}) for \d s; restart$", killed), killed
        await process.out.until("worker activation is fresh again")
        incarnations = await process.incarnations()
        assert incarnations.pop("activation") == 2
        assert set(incarnations.values()) == {1}
        assert process.err.text.count("worker activation is") == 1, "reported once"
        (event,) = [event for event in await process.events() if event["kind"] == "BeatStale"]
        assert any("demo_actors.py" in frame for frame in event["facts"]["where"]), "machines get the whole stack"
        assert event["facts"]["message"] == message
        if message == "Work":
            await process.out.until("activation has done 3")
            inspected = await process.call("inspect", name="activation")
            assert inspected["actor"] == {"done": [2, 3]}, "what waited in its mailbox is handled after the restart"
        assert await process.stop() == 0


async def test_a_stuck_worker_and_a_frozen_health_check_restart_and_the_process_lives() -> None:
    """All three beats stale at once cannot be had from a stuck worker: while the loop turns its own beat is fresh. The
    nearest true thing is two stale beats beside a turning loop, and that is repaired, never left."""
    async with watched(STUCK.format(seconds=0) + FROZEN_HEALTHCHECK, others=False) as process:
        await process.out.until("worker activation is fresh again")
        await process.out.until("healthcheck healthcheck is fresh again")
        assert await process.incarnations() == {"activation": 2, "ticker": 1, "healthcheck": 2}
        assert await process.stop() == 0


# S-529
async def test_more_stale_workers_than_the_restart_intensity_do_not_end_the_process() -> None:
    """A common cause makes many workers stale in one look. They are all repaired, and no attempt is charged for it."""
    names = [f"worker{number}" for number in range(3)]
    workers = "".join(STUCK.format(seconds=0).replace("activation", name) for name in names)
    async with watched("[supervisor]\nintensity = 1\nperiod = 600.0\n" + workers) as process:
        for name in names:
            await process.out.until(f"worker {name} is fresh again")
        assert dict.fromkeys(names, 2).items() <= (await process.incarnations()).items()
        assert await process.stop() == 0


# S-529 S-814
async def test_a_worker_that_no_repair_helps_is_given_up_on_as_its_spec_says() -> None:
    await side_by_side(
        hopeless_worker,
        ('give_up = "park"\n', "activation is parked: more than 1 repairs within 60 s", 0),
        (
            "",
            "atlas gave up because of activation: supervisor atlas gave up: activation had to be repaired 2 times",
            69,
        ),
    )


async def hopeless_worker(give_up: str, said: str, status: int) -> None:
    """Every incarnation gets stuck."""
    text = f"""
[actor.activation]
{give_up}actor = "{{actors}}:Hopeless"
"""
    async with watched(text, repair_intensity=1, repair_period=60.0) as process:
        await process.err.until("worker activation is")
        await process.err.until(said)
        if not status:
            incarnations = await process.incarnations()
            assert incarnations == {"activation": 2, "ticker": 1, "healthcheck": 1}
            assert await process.stop() == 0
        else:
            assert await process.exit() == status


async def test_a_paused_worker_is_left_out() -> None:
    late = STUCK.format(seconds=0).replace("activation", "late").replace("[0.0, 0.0]", "[1.0, 1.0]")
    paused = STARVED.format(seconds=0).replace("args", "paused = true\nargs")
    async with watched(paused + late) as process:
        await process.out.until("worker late is fresh again")  # two limits later
        assert "activation" not in process.err
        assert (await process.incarnations())["activation"] == 1
