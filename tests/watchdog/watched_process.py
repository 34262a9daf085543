"""`atlas run` under a watchdog with short limits: a real process, read line by line."""

from __future__ import annotations

import functools
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from runtime.child_process import PIPE, ChildProcess, lines, spawn
from runtime.control import client
from tests.runtime.atlas_process import environment

ACTORS = "tests.watchdog.demo_actors"
PATIENCE = 120.0
"""Seconds until a test gives up on something that takes a few."""

LOOP_STALE, WORKER_STALE, HEALTHCHECK_STALE = 1.0, 1.4, 1.4
SHORT = {
    "interval": 0.1,
    "event_loop_stale": LOOP_STALE,
    "worker_stale": WORKER_STALE,
    "healthcheck_stale": HEALTHCHECK_STALE,
}
LONG = 600.0
"""A limit that no test reaches: for the beats that shall stay fresh."""

OTHERS = """
[actor.ticker]
actor = "{actors}:Worker"
args = {{ interval = 0.2, start_jitter = [0.0, 0.1] }}
[actor.healthcheck]
actor = "{actors}:Healthcheck"
"""
"""A healthy worker and a healthy health check, so that all three beats exist."""


class Output:
    """One of the two streams, and everything read from it so far."""

    def __init__(self, name: str, other: Output | None = None) -> None:
        self.name = name
        self.other = other
        self.lines: list[str] = []
        self.ended = False
        self._news = trio.Event()

    async def read(self, stream: trio.lowlevel.FdStream) -> None:
        async for line in lines(stream):
            self.lines.append(line)
            self._rouse()
        self.ended = True
        self._rouse()

    def _rouse(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, text: str, *, times: int = 1) -> str:
        """Wait for the line that holds `text` for the `times`-th time, and return it."""
        with trio.move_on_after(PATIENCE):
            while True:
                found = [line for line in self.lines if text in line]
                if len(found) >= times:
                    return found[times - 1]
                if self.ended:
                    break
                await self._news.wait()
        raise AssertionError(
            f"{self.name} never said {text!r} {times} times; it said:\n{self.text}\n\nand the other stream:\n{self.other}"
        )

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return self.text

    def __contains__(self, text: str) -> bool:
        return text in self.text


class Watched:
    """The running process."""

    def __init__(self, directory: Path, process: ChildProcess) -> None:
        self.process = process
        self.out = Output("stdout")
        self.err = Output("stderr", self.out)
        self.out.other = self.err
        self._socket = directory / "atlas.sock"

    async def call(self, command: str, **arguments: object) -> Any:
        """Ask over the control socket: only a loop that turns answers."""
        return await trio.to_thread.run_sync(
            functools.partial(
                client.call, self._socket, command, timeout=PATIENCE, token=None, config=None, **arguments
            )
        )

    async def events(self) -> list[dict[str, Any]]:
        """All events so far, as `atlas events --json` gives them."""

        def read() -> list[Any]:
            return list(client.stream(self._socket, "events", limit=1000))

        return await trio.to_thread.run_sync(read)

    @property
    def complaints(self) -> list[str]:
        """What it said at ERROR or above, and what the watchdog's thread said past the log."""
        return [line for line in self.err.lines if re.search(r" (ERROR|CRITICAL) |atlas watchdog:", line)]

    async def incarnations(self) -> dict[str, int]:
        """Prove that it lives and serves; the incarnation of each child."""
        status = await self.call("status")
        assert status["state"] == "up"
        return {child["name"]: child["incarnation"] for child in status["children"]}

    async def exit(self) -> int:
        """Wait for its end and for the end of its output."""
        with trio.fail_after(PATIENCE):
            status = await self.process.wait()
            for output in (self.out, self.err):
                while not output.ended:
                    await output._news.wait()
        return status

    async def stop(self) -> int:
        """Ask it to stop, as systemd does."""
        self.process.send_signal(signal.SIGTERM)
        return await self.exit()


async def side_by_side(case: Callable[..., Awaitable[None]], *arguments: tuple[object, ...]) -> None:
    """Run one case with several sets of arguments at once: they mostly wait, each in a process of its own."""
    async with trio.open_nursery() as nursery:
        for each in arguments:
            nursery.start_soon(case, *each)


def toml_table(name: str, values: dict[str, object]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items())])


@asynccontextmanager
async def watched(
    text: str, *, others: bool = True, stdout: int = PIPE, env: dict[str, str] | None = None, **limits: float | str
) -> AsyncIterator[Watched]:
    """Run the actors of `text`, beside healthy `others`, with `limits` instead of the short ones. Ends it at the end."""
    with tempfile.TemporaryDirectory(prefix="atlas-", dir="/tmp") as name:
        directory = Path(name)
        tables = ['[control]\nsocket = "atlas.sock"', toml_table("watchdog", {**SHORT, **limits})]
        tables.append(((OTHERS if others else "") + text).format(actors=ACTORS))
        (directory / "supervisor.toml").write_text("\n".join(tables))
        process = spawn(
            [sys.executable, "-m", "runtime.cli.main", "run"],
            name="atlas",
            cwd=directory,
            env=environment(directory, **(env or {})),
            stdout=stdout,
            stderr=PIPE,
        )
        running = Watched(directory, process)
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                for output, stream in ((running.out, process.stdout), (running.err, process.stderr)):
                    if stream is None:
                        output.ended = True
                    else:
                        nursery.start_soon(output.read, stream)
                try:
                    yield running
                except Exception as error:  # noqa: BLE001  # raised again below, outside the nursery that would wrap it
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            await process.close()
        if failure is not None:
            raise failure
