"""A real `atlas run` in a process of its own, for tests."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runtime.control import client

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds until a test gives up waiting for something that takes milliseconds."""

ACTORS = "tests.runtime.demo_actors"


def environment(directory: Path, **more: str) -> dict[str, str]:
    """A clean environment in which `tests` can be imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ATLAS", "XDG_"))}
    return kept | {"PYTHONPATH": str(ROOT), "TMPDIR": str(directory), **more}


def atlas(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `atlas` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli.main", *arguments],
        cwd=directory,
        env=environment(directory, **env),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class AtlasProcess:
    """`atlas run` in the given directory, whose supervisor.toml it reads."""

    def __init__(self, directory: Path, *, stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.socket = directory / "atlas.sock"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime.cli.main", "run"],
            cwd=directory,
            env=environment(directory, **(env or {})),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        """Everything read so far, both streams together."""
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, text: str) -> str:
        """Read on until a line contains `text`, and return that line."""
        ends = 0
        while ends < len(self._readers):
            line = self._queue.get(timeout=PATIENCE)
            if line is None:
                ends += 1
                continue
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"the process ended without saying {text!r}; it said:\n" + "\n".join(self.lines))

    def saw(self, text: str) -> str:
        """The first line that contains `text`, among those that were read already or else those that come."""
        return next((line for line in self.lines if text in line), None) or self.until(text)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def call(self, command: str, **arguments: object) -> object:
        return client.call(self.socket, command, timeout=PATIENCE, token=None, config=None, **arguments)

    def wait(self) -> int:
        """The exit code; the rest of the output is in `lines` then."""
        code = self.process.wait(timeout=PATIENCE)
        for reader in self._readers:
            reader.join(timeout=PATIENCE)
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)
        return code

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(timeout=PATIENCE)
        for reader in self._readers:
            reader.join(timeout=PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name (a unix socket's path has at most 107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="atlas-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def write_config(directory: Path, text: str, *, more: str = "") -> Path:
    """A supervisor.toml whose socket lies beside it."""
    file = directory / "supervisor.toml"
    file.write_text(f'[control]\nsocket = "atlas.sock"\n{more}\n{text.format(actors=ACTORS)}')
    return file
