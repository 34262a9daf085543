from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from actors import MOVED_ACTORS
from runtime.config.actor_class import actor_class

YESTERDAY = Path(__file__).parent / "supervisor_before_folders.toml"
"""The shipped configuration as it was before the actors moved into folders."""


@pytest.mark.parametrize("old", MOVED_ACTORS)
def test_the_old_path_of_an_actor_still_names_it(old: str) -> None:
    module, _, name = MOVED_ACTORS[old].partition(":")
    assert actor_class(old) is getattr(importlib.import_module(module), name)


def test_an_operators_old_configuration_still_checks() -> None:
    program = "from runtime.cli.main import main; main()"
    checked = subprocess.run(
        [sys.executable, "-c", program, "check", "--config", str(YESTERDAY)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stderr
    assert all(old in YESTERDAY.read_text() for old in MOVED_ACTORS)
