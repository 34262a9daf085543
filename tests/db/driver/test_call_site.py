"""Lines in errors are ours, and stay ours when the program is installed as a package among others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import trio

from db.driver.call_site import is_library, sites

ROOT = Path(__file__).parents[3]
CHEAT = """
import trio
import db.driver.call_site, db.driver.stepping
from db.lease.lease import Lease


class Wire:
    stepping = needs_cleaning = False
    label, foreign_await, view = "cheat", None, object()


async def main():
    made = {}
    text = "import trio\\nasync def asleep():\\n    await trio.sleep(1)\\n"
    exec(compile(text, db.driver.call_site.__file__.replace("db/driver/call_site.py", "actors/x.py"), "exec"), made)
    try:
        await db.driver.stepping.step(Wire(), made["asleep"]())
    except db.driver.stepping.ForeignAwait as error:
        print(db.driver.call_site.__file__, error)


trio.run(main)
"""


def test_the_line_is_named_also_where_the_program_is_installed_among_other_packages(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    for room in ("actors", "db", "runtime", "vpn"):
        shutil.copytree(ROOT / room, packages / room, ignore=shutil.ignore_patterns("*.pyc", "*.sql"))
    env = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(
        [sys.executable, "-c", CHEAT], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "site-packages" in done.stdout
    assert "actors/x.py:3 in asleep" in done.stdout


def test_the_standard_library_and_installed_packages_are_not_ours() -> None:
    assert is_library(subprocess.run.__code__)
    assert is_library(trio.sleep.__code__)
    assert is_library(asyncpg.connect.__code__)
    assert not is_library(sites.__code__)
    assert not is_library(test_the_standard_library_and_installed_packages_are_not_ours.__code__)


def test_where_no_line_is_ours_all_are_named() -> None:
    ours, theirs = (sites.__code__, 1), (trio.sleep.__code__, 2)
    assert len(sites([theirs, ours, theirs])) == 1
    assert len(sites([theirs, theirs])) == 2
