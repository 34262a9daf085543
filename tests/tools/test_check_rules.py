"""Each rule finds a planted violation and leaves the honest line alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_rules import LONGEST_TEST_NAME, MOST_FILES, breaches


def check(root: Path, path: str, text: str) -> list[str]:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return list(breaches(root, [path]))


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("actors/x.py", "client = httpx.AsyncClient(http2=True)", "lease guard"),
        ("actors/x.py", "from httpx import Response, AsyncClient", "lease guard"),
        ("actors/x.py", "page = httpx.get(url)", "lease guard"),
        ("db/x.py", "await tx.execute('SELECT pg_advisory_lock(1)')", "session-level lock"),
        ("db/x.py", "pool = await asyncpg.create_pool(dsn)", "asyncpg.Pool"),
        ("tests/x.py", "async def test_x():\n    if True:\n        await trio.sleep(1)", "never sleeps"),
        ("tests/x.py", "def test_x():\n    time.sleep(1)", "never sleeps"),
        ("tests/x.py", "def test_a(autojump_clock): pass\ndef test_x():\n    time.sleep(1)", "never sleeps"),
        ("tests/x.py", "class TestX:\n    def test_x(self):\n        time.sleep(1)", "never sleeps"),
        ("tests/x.py", "def until(f):\n    while not f():\n        time.sleep(1)", "never sleeps"),
        (
            "tests/x.py",
            "def test_x():\n    async def look():\n        while 1:\n            await trio.sleep(1)",
            "never sleeps",
        ),
        ("docs/x.md", "see /home/someone/atlas", "machine"),
        ("requirements/x.lock", "--index-url https://example.org", "registry"),
        ("requirements/x.lock", "six @ https://files.python" + "hosted.org/six.whl", "registry"),
        ("runtime/x.py", "# TO" + "DO: later", "unfinished"),
        ("runtime/x.py", "\n" * 501, "more than one concept"),
        ("tests/x.py", f"def test_{'x' * (LONGEST_TEST_NAME - 4)}(): pass", "81 characters"),
        ("tests/x.py", f"class TestX:\n    async def test_{'x' * LONGEST_TEST_NAME}(self): pass", "85 characters"),
        ("db/x/__init__.py", "from db.x.y import z", "without a docstring"),
        ("db/x/__init__.py", '""""""', "without a docstring"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, line: str, expected: str) -> None:
    found = check(tmp_path, path, line + "\n")
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("actors/x.py", "from httpx import HTTPError, Response"),
        ("runtime/http/client.py", "return httpx.AsyncClient(transport=guarded)"),
        ("db/x.py", "SELECT pg_advisory_xact_lock($1, $2)"),
        ("runtime/x.py", "await trio.sleep(1)"),
        ("tests/x.py", "async def test_x(autojump_clock):\n    await trio.sleep(1)"),
        ("tests/x.py", "def test_x():\n    async def stuck():\n        await trio.sleep(60)"),
        (
            "tests/x.py",
            "async def test_x(mock_clock):\n    async def look():\n        while 1:\n            await trio.sleep(1)",
        ),
        ("tests/x.py", "def test_x():\n    trio.run(trio.sleep, 1, clock=MockClock())\n    trio.sleep(1)"),
        ("tests/x.py", "class Slow:\n    async def on_stop(self):\n        await trio.sleep(60)"),
        ("docs/x.md", "data lies under /var/lib/atlas"),
        ("runtime/x.py", "\n" * 499),
        ("tests/x.py", f"def test_{'x' * (LONGEST_TEST_NAME - 5)}(): pass"),
        ("runtime/x.py", f"def test_{'x' * LONGEST_TEST_NAME}(): pass"),
        ("db/x/__init__.py", '"""What it promises."""'),
        ("tests/x/__init__.py", ""),
    ],
)
def test_an_honest_line_passes(tmp_path: Path, path: str, line: str) -> None:
    assert check(tmp_path, path, line + "\n") == []


@pytest.mark.parametrize("folder", ["runtime/x", "actors", "db/x/y", "vpn", "tests/x"])
def test_a_folder_with_too_many_python_files_is_found(tmp_path: Path, folder: str) -> None:
    paths = [f"{folder}/file{number}.py" for number in range(MOST_FILES + 1)]
    (found,) = breaches(tmp_path, paths)
    assert found.startswith(f"{folder}:{MOST_FILES + 1}: more than {MOST_FILES} Python files")
    assert list(breaches(tmp_path, paths[1:])) == []


def test_data_files_folders_below_and_other_trees_do_not_fill_a_folder(tmp_path: Path) -> None:
    full = [f"db/file{number}.py" for number in range(MOST_FILES)]
    others = [f"benchmarks/file{number}.py" for number in range(MOST_FILES + 1)]
    assert list(breaches(tmp_path, [*full, "db/schema.sql", "db/below/x.py", *others])) == []
