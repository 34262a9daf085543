"""A resolver that never answers holds neither a caller who gave up nor the end of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import socket, subprocess, sys
import trio
from db.driver.session import open_session

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))

async def main():
    async with trio.open_nursery() as nursery:
        async def connect():
            async with open_session("postgresql://u@db.example/x", "atlas/test", within=600):
                pass
        nursery.start_soon(connect)
        await trio.to_thread.run_sync(silent.recv, 1)  # the question was asked
        nursery.cancel_scope.cancel()
    print("given up", flush=True)

trio.run(main)
"""
HANGS = 300
"""Seconds for which the resolver would go on."""


@pytest.mark.system
def test_a_look_up_that_hangs_holds_neither_its_caller_nor_the_exit(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", sys.executable, "-c", PROGRAM, str(resolver)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS / 3, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "given up\n"
