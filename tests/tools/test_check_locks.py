from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / "tools" / "check_locks.py"


def run(*arguments: str | Path) -> tuple[int, list[str]]:
    """The tool as CI runs it."""
    done = subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def lines_refused(tmp_path: Path, source: str) -> dict[int, str]:
    path = tmp_path / "module.py"
    path.write_text(textwrap.dedent(source))
    status, output = run(path)
    found = {}
    for line in output:
        where, what = line.removeprefix(f"{path}:").split(": ", 1)
        found[int(where)] = what
    assert status == (1 if found else 0)
    return found


PLANTED = {
    "module attribute": ("import threading\nlock = threading.Lock()", 2, "threading.Lock blocks"),
    "imported name": ("from threading import RLock\nx = RLock()", 2, "threading.RLock blocks"),
    "renamed": ("from threading import Condition as C\nx = C()", 2, "threading.Condition blocks"),
    "renamed module": ("import threading as t\nx = t.BoundedSemaphore()", 2, "threading.BoundedSemaphore"),
    "as a factory": ("import threading\nx = field(factory=threading.Semaphore)", 2, "threading.Semaphore"),
    "queue": ("import queue\nx = queue.Queue()", 2, "queue.Queue blocks"),
    "event": ("import threading\nthreading.Event().wait()", 2, "threading.Event blocks"),
    "multiprocessing": ("import multiprocessing\nx = multiprocessing.Queue()", 2, "multiprocessing.Queue"),
    "low level": ("import _thread\nx = _thread.allocate_lock()", 2, "_thread.allocate_lock"),
    "acquire": ("def f(self):\n    self._lock.acquire()", 2, "_lock.acquire() blocks"),
    "everything imported": ("from threading import *\nx = Lock()", 2, "threading.Lock blocks"),
    "entered by hand": ("def f(self):\n    self._lock.__enter__()", 2, "_lock.__enter__() blocks"),
    "on a stack": ("def f(self, stack):\n    stack.enter_context(self._lock)", 2, "enter_context(_lock) blocks"),
    "with": ("def f(self):\n    with self._lock:\n        pass", 2, "`with _lock` blocks"),
    "with among others": ("def f(a, lock):\n    with a, lock:\n        pass", 2, "`with lock` blocks"),
}


@pytest.mark.parametrize(("source", "line", "what"), PLANTED.values(), ids=PLANTED)
def test_a_blocking_lock_is_refused_with_its_line(tmp_path: Path, source: str, line: int, what: str) -> None:
    found = lines_refused(tmp_path, source)
    assert list(found) == [line]
    assert what in found[line]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("await x()", "await"),
        ("yield 1", "yield"),
        ("async for _ in x(): pass", "async for"),
        ("async with x(): pass", "async with"),
        ("value = [await x() for _ in range(3)]", "await"),
        ("if x: await x()", "await"),
    ],
)
def test_waiting_under_a_lock_is_refused_even_where_the_lock_is_allowed(
    tmp_path: Path, statement: str, what: str
) -> None:
    found = lines_refused(
        tmp_path,
        f"""
        import threading
        guard = threading.Lock()  # lock-ok: shared with the reader's thread
        async def f(x):
            with guard:  # lock-ok: shared with the reader's thread
                {statement}
        """,
    )
    assert len(found) == 1
    assert f"{what} while guard is held" in next(iter(found.values()))


def test_yield_from_under_a_lock_made_on_the_spot_is_refused(tmp_path: Path) -> None:
    found = lines_refused(
        tmp_path,
        """
        import threading
        def f():
            with threading.Lock():  # lock-ok: never shared
                yield from ()
        """,
    )
    assert list(found) == [5]
    assert "yield from while threading.Lock is held" in found[5]


@pytest.mark.parametrize(
    "source",
    [
        "import trio\nlock = trio.Lock()\nasync def f():\n    async with lock:\n        await g()",
        "import trio\nasync def f(self):\n    await self._lock.acquire()",
        "import trio\nlimit = trio.Semaphore(3)",
        "lock = InstanceLock('x')\nlock.acquire()",
        "import threading\nt = threading.Thread(target=f)\nn = threading.get_ident()",
        "import threading\nx = threading.Lock()  # lock-ok: only the writer's thread and its starter take it",
        "def f(clock, block):\n    with clock, block:\n        pass",
        "with open('x') as file:\n    pass",
    ],
)
def test_what_does_not_block_or_says_why_is_left_alone(tmp_path: Path, source: str) -> None:
    assert lines_refused(tmp_path, source) == {}


def test_a_function_defined_under_a_lock_does_not_wait_under_it(tmp_path: Path) -> None:
    source = """
    def f(lock):
        with lock:  # lock-ok: another thread's
            async def later():
                await g()
            return lambda: (yield)
    """
    assert lines_refused(tmp_path, source) == {}


def test_a_permission_without_a_reason_is_refused(tmp_path: Path) -> None:
    found = lines_refused(tmp_path, "import threading\nx = threading.Lock()  # lock-ok:")
    assert found == {2: "`# lock-ok:` needs a reason"}


def test_a_permission_inside_a_string_is_none(tmp_path: Path) -> None:
    found = lines_refused(tmp_path, 'import threading\nx = threading.Lock(), "# lock-ok: no"')
    assert list(found) == [2]


def test_directories_are_searched_and_every_violation_is_listed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("import threading\nx = threading.Lock()\ny = threading.RLock()\n")
    (tmp_path / "sub" / "b.py").write_text("import queue\nq = queue.Queue()\n")
    (tmp_path / "sub" / "broken.py").write_text("def f(:\n")
    (tmp_path / "fine.py").write_text("x = 1\n")
    status, output = run(tmp_path)
    assert status == 1
    places = [line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in output]
    assert places == ["a.py:2", "a.py:3", "sub/b.py:2", "sub/broken.py:1"]


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    status, output = run(tmp_path / "nowhere")
    assert status == 2
    assert "no such file or directory" in output[0]


def test_this_repository_holds_no_blocking_lock() -> None:
    assert run() == (0, [])
