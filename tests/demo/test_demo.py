"""The demo as its user meets it: a short month ends well, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import trio

from runtime.child_process import PIPE, lines, spawn

REPOSITORY = Path(__file__).parent.parent.parent


def environment() -> dict[str, str]:
    """Nothing of ATLAS is set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")}


def processes_of(home: str) -> list[str]:
    """The command lines of every living process that knows of this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command, known = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and os.fsencode(home) in command + known:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


async def test_a_short_month_ends_well() -> None:
    with trio.fail_after(240):
        done = await trio.run_process(
            [sys.executable, "-m", "demo", "--quick", "--seed", "3"],
            cwd=REPOSITORY,
            env=environment(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    assert "money invariants hold" in said
    assert "rules hold: everything stored follows from the facts" in said
    assert re.search(r"refunds 1, chargebacks 1, withdrawals 1; compensations 1", " ".join(said.split()))
    assert re.search(
        r"the same after one row was altered on purpose: .*journal.*withdrawal.*derived.*stored", " ".join(said.split())
    )
    assert "was cut off at the end of the access" in said
    assert "connected still, on the first connection" in said
    renewals = re.search(r"renewals\s*│ (\d+), expected (\d+)", said)
    assert renewals is not None
    assert renewals[1] == renewals[2] != "0"


async def test_ctrl_c_leaves_no_process_and_no_directory() -> None:
    demo = spawn([sys.executable, "-m", "demo", "--quick"], name="demo", cwd=REPOSITORY, env=environment(), stdout=PIPE)
    assert demo.stdout is not None
    home = ""
    try:
        with trio.fail_after(120):
            async for line in lines(demo.stdout):
                if found := re.search(r"its data in (\S+)", line):
                    home = found[1]
                    break
            assert home
            assert processes_of(home)
            demo.send_signal(signal.SIGINT)
            assert await demo.wait() == 130
    finally:
        await demo.close()
    assert processes_of(home) == []
    assert not Path(home).exists()
