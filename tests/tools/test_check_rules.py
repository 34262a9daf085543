"""Each house rule bites on a planted violation and leaves the honest line alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_house import breaches


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
    ],
)
def test_an_honest_line_passes(tmp_path: Path, path: str, line: str) -> None:
    assert check(tmp_path, path, line + "\n") == []
