"""The pages on writing actors show the example files as they are, and all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.atlas_process import PATIENCE, ROOT, environment

DOCUMENTS = [ROOT / "docs" / "tutorial" / "adding-an-actor.md", ROOT / "docs" / "howto" / "actors.md"]
SHOWN = {
    file: text
    for document in DOCUMENTS
    for file, text in re.findall(r"^```\w+ (examples/\S+)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)
}
FILES = sorted(
    str(file.relative_to(ROOT))
    for file in (ROOT / "examples").rglob("*.*")
    if "__pycache__" not in file.parts and file.is_file()
)


def test_the_documents_show_every_example_file_and_no_other() -> None:
    assert sorted(SHOWN) == FILES


@pytest.mark.parametrize("file", FILES)
def test_what_a_document_shows_is_the_file(file: str) -> None:
    assert SHOWN[file] == (ROOT / file).read_text()


@pytest.mark.parametrize("file", ["examples/bell/bell.py", *(file for file in FILES if "/more/" in file)])
def test_an_example_is_under_40_lines(file: str) -> None:
    assert len((ROOT / file).read_text().splitlines()) < 40


def test_the_examples_own_tests_pass(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
