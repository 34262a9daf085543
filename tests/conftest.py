"""What holds for every test: marks, the rule that a skip is a failure where nothing may be missing, and what is told at the end.

Tests run in several worker processes at once (pytest-xdist). What only a worker knows reaches the process that reports by
`config.workeroutput`, which holds plain values and is sent at the worker's end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from tests.fork_server import close_fork_servers

# pytest-xdist tells its workers how wide the terminal is: what commands print into a pipe is not to depend on it.
os.environ.pop("COLUMNS", None)

NO_SKIP = "ATLAS_TEST_NO_SKIP"
BRIDGES_TAKEN: Final = "bridges_taken"
"""The name under which a worker sends how many pools ran on which driver bridge."""
TOLD: Final = "told"
LONG: Final = ("e2e", "benchmarks", "demo", "actors/pool/test_debian.py")
"""Where tests take a worker for tens of seconds."""
_taken: Final = pytest.StashKey[Counter[str]]()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a campaign did: printed at the end of the whole run, whichever worker it ran in."""

    def tell(text: str) -> None:
        record_property(TOLD, text)

    return tell


def count_bridges(config: pytest.Config, taken: Mapping[str, int]) -> None:
    """Add to the count of pools by driver bridge that is told at the end of the whole run."""
    sent: dict[str, object] | None = getattr(config, "workeroutput", None)
    if sent is not None:
        sent[BRIDGES_TAKEN] = dict(taken)
    else:
        config.stash.setdefault(_taken, Counter()).update(taken)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended; one that crashed sent nothing."""
    count_bridges(node.config, getattr(node, "workeroutput", {}).get(BRIDGES_TAKEN, {}))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The long ones first: begun last, one would keep a worker busy when the others have nothing left to take.
    long = tuple(config.rootpath / "tests" / name for name in LONG)
    items.sort(key=lambda item: not any(item.path.is_relative_to(path) for path in long))
    if os.getuid() == 0:
        return
    for_root = [item for item in items if item.get_closest_marker("root")]
    if for_root:
        config.hook.pytest_deselected(items=for_root)
        items[:] = [item for item in items if item not in for_root]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for text in (value for name, value in report.user_properties if name == TOLD):
                terminalreporter.write_line(f"{report.nodeid}: {text}")
    if taken := terminalreporter.config.stash.get(_taken, None):
        ran = ", ".join(f"{name} {count} times" for name, count in sorted(taken.items()))
        terminalreporter.write_line(f"driver bridges that pools ran on: {ran}")


def pytest_unconfigure() -> None:
    close_fork_servers()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Workers have no reporter: only the process that knows what all of them skipped may judge.
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get(NO_SKIP) or exitstatus != pytest.ExitCode.OK:
        return
    if skipped := reporter.stats.get("skipped", []):
        reporter.write_line(f"{len(skipped)} skipped, but {NO_SKIP} is set: nothing may be missing here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
