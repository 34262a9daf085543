"""The wheel that is built and installed once for all tests of shipping."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ship.wheel import build_wheel, new_environment


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """`atlas` as it is installed from the wheel into an environment that has the locked packages and nothing else."""
    root = Path(tempfile.mkdtemp(prefix="atlas-wheel-"))
    root.chmod(0o755)  # the account of the embedded PostgreSQL reaches its programs
    try:
        yield new_environment(root / "venv", build_wheel(root)) / "atlas"
    finally:
        shutil.rmtree(root, ignore_errors=True)
