"""`make run`, as somebody types it who has just cloned this: one screen, and Ctrl-C ends it all."""

from __future__ import annotations

import os
import signal

import trio

from runtime.child_process import PIPE, lines, spawn
from tests.e2e.stack import REPOSITORY, stack
from tests.e2e.test_lifecycle import programs, until_gone
from tests.run_queue import descendants


async def test_make_run_ends_in_one_screen_and_ctrl_c_leaves_nothing_behind() -> None:
    async with stack() as here:
        env = {name: value for name, value in here.env.items() if not name.startswith("MAKE") and name != "MFLAGS"}
        make = spawn(["make", "run"], name="make run", env=env, cwd=REPOSITORY, stdout=PIPE, stderr=None)
        try:
            assert make.stdout is not None
            screen: list[str] = []
            said = lines(make.stdout)
            with trio.fail_after(120):
                async for line in said:
                    screen.append(line)
                    if line.strip() == "next:":
                        break
                assert screen and screen[-1].strip() == "next:", "\n".join(screen)
                at = next(number for number, line in enumerate(screen) if line.startswith("atlas is up:"))
                assert len(screen) - at <= 40, "one screen"
                family = descendants(make.pid)
                assert programs(family) == {"postgres", "vpn.agent", "vpn.xray"}
                os.killpg(make.pid, signal.SIGINT)  # as a terminal does: everybody in the foreground hears it
                async for _ in said:
                    pass
                await make.wait()
            await until_gone(family, within=5)
            assert here.processes() == []
        finally:
            with trio.CancelScope(shield=True):
                await make.stop(signal.SIGINT, grace=30)
                await make.close()
