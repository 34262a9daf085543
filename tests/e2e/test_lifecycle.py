"""Starting, stopping and dying: nothing is left behind, and the next start works."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import trio

from runtime.child_process import ChildProcess
from tests.e2e.stack import Stack, stack
from tests.run_queue import Stopwatch, at_most, descendants

SECOND_START_SECONDS = 5.0


async def until_gone(pids: list[int], *, within: float) -> None:
    """Return once every one of these processes has ended; raises if that takes longer, a busy machine left out."""
    with at_most(within):
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)


def programs(pids: list[int]) -> set[str]:
    """What these processes are, in one word each."""
    found = set()
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        found |= {word for word in ("postgres", "vpn.agent", "vpn.xray") if word in command}
    return found


async def end(supervisor: ChildProcess, number: signal.Signals) -> int:
    supervisor.send_signal(number)
    with trio.fail_after(90):
        return await supervisor.wait()


async def test_ctrl_c_stops_everything_in_order_and_leaves_no_process() -> None:
    async with stack() as here, here.running() as supervisor:
        family = descendants(supervisor.pid)
        assert programs(family) == {"postgres", "vpn.agent", "vpn.xray"}
        assert await end(supervisor, signal.SIGINT) == 0
        await until_gone(family, within=1)
        assert here.processes() == []


async def test_a_terminals_ctrl_c_reaches_only_the_supervisor() -> None:
    async with stack(migrated=True) as here, here.running() as supervisor:
        for pid in descendants(supervisor.pid):
            assert os.getpgid(pid) != os.getpgid(supervisor.pid)


async def test_sigkill_of_the_supervisor_leaves_nothing_and_the_next_start_works() -> None:
    async with stack(migrated=True) as here:
        async with here.running() as supervisor:
            family = descendants(supervisor.pid)
            assert programs(family) == {"postgres", "vpn.agent", "vpn.xray"}
            supervisor.send_signal(signal.SIGKILL)
            await supervisor.wait()
            await until_gone(family, within=10)
            assert here.processes() == []
        async with here.running():
            await here.ok("customer", "add", "42")


async def test_the_next_start_does_not_wait_for_the_remains_of_a_killed_one() -> None:
    async with stack(migrated=True) as here:
        async with here.running() as supervisor:
            supervisor.send_signal(signal.SIGKILL)
            await supervisor.wait()
        async with here.running():
            await here.ok("customer", "add", "42")


async def test_the_second_start_is_quick_and_finds_what_was_written() -> None:
    async with stack(migrated=True) as here:
        async with here.running():
            await here.ok("customer", "add", "42")
        took = Stopwatch()
        async with here.running():
            assert took.seconds() < SECOND_START_SECONDS, str(took)
            again = await here.ok("customer", "add", "42", "--json")
            assert again.json["telegram_id"] == 42


async def test_probes_answer_and_say_what_is_wrong() -> None:
    async with stack(migrated=True) as here, here.running(), httpx.AsyncClient(trust_env=False) as browser:
        admin = await _admin(here)
        assert (await browser.get(f"{admin}/livez")).status_code == 200
        assert (await browser.get(f"{admin}/startupz")).status_code == 200
        ready = await browser.get(f"{admin}/readyz")
        assert (ready.status_code, ready.json()["not_ready"]) == (200, {})
        metrics = (await browser.get(f"{admin}/metrics")).text
        assert "atlas_keys_total" in metrics
        assert "atlas_ready 1" in metrics
        await here.ok("stop", "node.local")
        unready = await browser.get(f"{admin}/readyz")
        assert unready.status_code == 503
        assert "node.local" in unready.json()["not_ready"]
        metrics = (await browser.get(f"{admin}/metrics")).text
        assert "atlas_ready 0" in metrics
        assert 'atlas_not_ready{actor="node.local",about="nodes.local",' in metrics


async def _admin(here: Stack) -> str:
    shown = await here.ok("inspect", "admin", "--json")
    facts = json.loads(shown.stdout)["facts"]
    assert isinstance(facts, dict)
    return str(facts["listening"])
