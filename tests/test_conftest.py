"""What the tests' own rules make of a run, in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NO_SKIP

CONFTEST = Path(__file__).parent / "conftest.py"
ALONE = ("--numprocesses", "0")
SHARED = ("--numprocesses", "2", "--dist", "worksteal")
PASSES = "def test_a(): pass\n"
SKIPS = "import pytest\n@pytest.mark.skip(reason='a part is missing')\ndef test_b(): pass\n"
COUNTS = """
from rules.conftest import count_bridges
def pytest_sessionfinish(session): count_bridges(session.config, {"inline": 2})
"""
TELLS = "def test_t(tell): tell('200 kills')\n"
SKIPS_ITS_MODULE = "import pytest\npytest.skip('a part is missing', allow_module_level=True)\n"


def run(
    directory: Path, files: dict[str, str], workers: tuple[str, ...], *, no_skip: str = "1"
) -> subprocess.CompletedProcess[str]:
    """Run the tests in these files, and one that passes, under the rules of `tests/conftest.py`."""
    package = directory / "rules"
    for name, text in {
        "__init__.py": "",
        "conftest.py": CONFTEST.read_text(),
        "test_passes.py": PASSES,
        **files,
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    plugins = ("-p", "xdist.plugin", "-p", "no:cacheprovider")
    env = {**os.environ, NO_SKIP: no_skip, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *plugins, *workers, str(package)]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [ALONE, SHARED], ids=["alone", "shared"])
@pytest.mark.parametrize("tests", [SKIPS, SKIPS_ITS_MODULE], ids=["a test", "a module"])
def test_a_skip_is_a_failure_where_nothing_may_be_missing(tmp_path: Path, workers: tuple[str, ...], tests: str) -> None:
    strict = run(tmp_path, {"test_given.py": tests}, workers)
    assert strict.returncode == 1, strict.stdout
    assert "1 skipped, but ATLAS_TEST_NO_SKIP is set" in strict.stdout
    lenient = run(tmp_path, {"test_given.py": tests}, workers, no_skip="")
    assert lenient.returncode == 0, lenient.stdout


@pytest.mark.parametrize("workers", [ALONE, SHARED], ids=["alone", "shared"])
def test_what_tests_tell_and_what_workers_count_is_printed_at_the_end(tmp_path: Path, workers: tuple[str, ...]) -> None:
    files = {"below/__init__.py": "", "below/conftest.py": COUNTS, "below/test_tells.py": TELLS}
    done = run(tmp_path, files, workers)
    assert done.returncode == 0, done.stdout
    assert "below/test_tells.py::test_t: 200 kills" in done.stdout
    # each of the two workers counted two
    assert f"driver bridges that pools ran on: inline {2 if workers is ALONE else 4} times" in done.stdout
