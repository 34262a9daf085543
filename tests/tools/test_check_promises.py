from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / "tools" / "check_promises.py"

DOCUMENT = """# Promises

- **S-1** One thing holds.
- **S-2** Another thing holds.

See S-1.
"""
TESTS = '''
import pytest

# S-1
def test_one():
    pass

@pytest.mark.skip  # S-2
async def test_another():
    """Says nothing of the kind."""
'''


def run(root: Path) -> tuple[int, list[str]]:
    """The tool as CI runs it."""
    done = subprocess.run(
        [sys.executable, str(TOOL), "--root", str(root)], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def plant(root: Path, document: str = DOCUMENT, tests: str = TESTS) -> tuple[int, list[str]]:
    (root / "docs/reference").mkdir(parents=True)
    (root / "tests" / "deep").mkdir(parents=True)
    (root / "docs/reference/semantics.md").write_text(document)
    (root / "tests" / "deep" / "test_it.py").write_text(tests)
    return run(root)


def test_this_repository_cites_every_promise() -> None:
    assert run(REPOSITORY) == (0, [])


def test_a_document_whose_promises_are_all_cited_passes(tmp_path: Path) -> None:
    assert plant(tmp_path) == (0, [])


@pytest.mark.parametrize(
    "place",
    [
        '# S_9\ndef test_x():\n    """No."""',
        "# Why it is so.\n# S_8 S_9\n# More.\n@decorated\n@twice\ndef test_x():\n    pass",
        'def test_x():\n    """Proves S_9, among others."""',
        "def test_x(  # S_9\n    fixture,\n):\n    pass",
        "class TestIt:\n    # S_9\n    async def test_x(self):\n        pass",
    ],
)
def test_a_citation_stands_above_a_test_in_its_signature_or_in_its_docstring(tmp_path: Path, place: str) -> None:
    status, lines = plant(
        tmp_path, DOCUMENT.replace("See", "- **S-8** x\n- **S-9** x\n\nSee"), f"{TESTS}\n{place.replace('S_', 'S-')}\n"
    )
    assert not any("S-9" in line for line in lines)
    assert status == (0 if "S_8" in place else 1)


PLANTED = {
    "a promise without a test": (
        DOCUMENT.replace("See", "- **S-3** Nobody proves this.\n\nSee"),
        TESTS,
        "docs/reference/semantics.md:6: S-3 is cited by no test",
    ),
    "a number given twice": (
        DOCUMENT.replace("See", "- **S-2** Again.\n\nSee"),
        TESTS,
        "docs/reference/semantics.md:6: S-2 is taken already, in line 4",
    ),
    "a number out of order": (
        DOCUMENT.replace("- **S-1** One", "- **S-5** One").replace("See S-1.", ""),
        TESTS.replace("S-1", "S-5"),
        "docs/reference/semantics.md:4: S-2 comes after S-5: numbers ascend",
    ),
    "a citation of nothing": (
        DOCUMENT,
        TESTS.replace("# S-1", "# S-1 S-7"),
        "tests/deep/test_it.py:5: test_one cites S-7, which is no promise",
    ),
    "a mention of nothing": (
        DOCUMENT.replace("See S-1", "See S-1 and S-6"),
        TESTS,
        "docs/reference/semantics.md:6: S-6 is mentioned, but there is no such promise",
    ),
    "a citation beside no test": (
        DOCUMENT,
        TESTS.replace("# S-1\ndef test_one", "# S-1\n\ndef test_one"),
        "docs/reference/semantics.md:3: S-1 is cited by no test",
    ),
    "a citation by a helper": (
        DOCUMENT,
        TESTS.replace("def test_one", "def one"),
        "docs/reference/semantics.md:3: S-1 is cited by no test",
    ),
}


@pytest.mark.parametrize(("document", "tests", "said"), PLANTED.values(), ids=PLANTED)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, document: str, tests: str, said: str) -> None:
    assert plant(tmp_path, document, tests) == (1, [said])


def test_a_document_without_promises_is_wrong(tmp_path: Path) -> None:
    status, lines = plant(tmp_path, "# Nothing\n", "")
    assert status == 1
    assert lines == ["docs/reference/semantics.md: no promise in it: a promise is a line `- **S-1** One sentence.`"]


def test_other_documents_mention_promises_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "docs/reference").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "docs/reference/semantics.md").write_text(DOCUMENT)
    (tmp_path / "docs/how-to.md").write_text("It holds (S-1), and so does this (S-4).\n")
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    assert run(tmp_path) == (1, ["docs/how-to.md:1: S-4 is mentioned, but there is no such promise"])
