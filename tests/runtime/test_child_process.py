"""A child process ends with its supervisor, in order or not, and its end is always seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import trio

from runtime.child_process import PIPE, lines, spawn

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]


async def test_every_waiter_sees_the_exit_status() -> None:
    child = spawn([sys.executable, "-c", "raise SystemExit(7)"], name="seven")
    seen: list[int] = []

    async def watch() -> None:
        seen.append(await child.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(watch)
    assert seen == [7, 7]
    await child.close()


async def test_a_cancelled_wait_leaves_the_child_running() -> None:
    child = spawn(SLEEPER, name="sleeper")
    with trio.CancelScope() as scope:
        scope.cancel()
        await child.wait()
    assert child.returncode is None
    await child.close()
    assert child.returncode == -signal.SIGKILL


async def test_stop_kills_a_child_that_ignores_the_polite_signal() -> None:
    child = spawn(STUBBORN, name="stubborn", stdout=PIPE)
    assert child.stdout is not None
    assert await anext(lines(child.stdout)) == "deaf"
    assert await child.stop(grace=0.05) == -signal.SIGKILL
    await child.close()


async def test_a_child_that_is_kept_ends_in_order_when_its_keeper_is_cancelled() -> None:
    child = spawn(SLEEPER, name="sleeper", stdout=PIPE)
    with trio.CancelScope() as scope:
        scope.cancel()
        await child.keep(grace=10)
    assert child.returncode is not None, "it is waited for before the keeper goes on"
    assert child.returncode != -signal.SIGKILL, "it was asked first"
    short = spawn([sys.executable, "-c", "raise SystemExit(7)"], name="seven")
    assert await short.keep(grace=10) == 7


async def test_close_works_inside_a_cancelled_scope() -> None:
    child = spawn(SLEEPER, name="sleeper")
    with trio.CancelScope() as scope:
        scope.cancel()
        await child.close()
    assert child.returncode == -signal.SIGKILL


async def test_input_larger_than_a_pipe_does_not_block() -> None:
    count = "import sys; print(len(sys.stdin.buffer.read()))"
    child = spawn([sys.executable, "-c", count], name="count", stdin=b"x" * 1_000_000, stdout=PIPE)
    assert child.stdout is not None
    assert await anext(lines(child.stdout)) == "1000000"
    assert await child.wait() == 0
    await child.close()


async def test_a_child_leads_a_session_of_its_own() -> None:
    child = spawn(SLEEPER, name="sleeper")
    assert os.getsid(child.pid) == child.pid
    await child.close()


async def test_a_child_is_started_on_the_main_thread_only() -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await trio.to_thread.run_sync(lambda: spawn(SLEEPER, name="sleeper"))


# S-715
async def test_sigkill_of_the_parent_ends_the_child() -> None:
    parent = textwrap.dedent(
        """
        import sys, trio
        from runtime.child_process import spawn
        async def main():
            child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], name="sleeper")
            print(child.pid, flush=True)
            await trio.sleep_forever()
        trio.run(main)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child_pid = int(await trio.to_thread.run_sync(process.stdout.readline))
    pidfd = os.pidfd_open(child_pid)
    process.kill()
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)
    process.wait()
    process.stdout.close()


async def test_lines_are_whole_also_without_a_final_newline() -> None:
    child = spawn([sys.executable, "-c", "print('one'); print('two', end='')"], name="lines", stdout=PIPE)
    assert child.stdout is not None
    assert [line async for line in lines(child.stdout)] == ["one", "two"]
    await child.close()


async def test_an_endless_line_is_given_in_pieces() -> None:
    child = spawn([sys.executable, "-c", "print('x' * 300_000)"], name="endless", stdout=PIPE)
    assert child.stdout is not None
    pieces = [line async for line in lines(child.stdout)]
    assert "".join(pieces) == "x" * 300_000
    assert len(pieces) > 1
    await child.close()
