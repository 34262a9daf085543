"""docs/tutorial/adding-an-actor.md shows the example files as they are, and all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.atlas_process import PATIENCE, ROOT, environment

DOCUMENT = ROOT / "docs" / "tutorial" / "adding-an-actor.md"
SHOWN = dict(re.findall(r"^```\w+ (examples/\S+)\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE))
FILES = sorted(
    str(file.relative_to(ROOT))
    for file in (ROOT / "examples").rglob("*.*")
    if "__pycache__" not in file.parts and file.is_file()
)


def test_the_document_shows_every_example_file_and_no_other() -> None:
    assert sorted(SHOWN) == FILES


@pytest.mark.parametrize("file", FILES)
def test_what_the_document_shows_is_the_file(file: str) -> None:
    assert SHOWN[file] == (ROOT / file).read_text()


def test_the_first_example_is_under_40_lines() -> None:
    assert len((ROOT / "examples/bell/bell.py").read_text().splitlines()) < 40


@pytest.mark.parametrize("file", [file for file in FILES if "/test_" in file])
def test_the_examples_own_tests_pass(file: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
