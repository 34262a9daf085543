"""What holds for every test: marks, and the rule that a skip is a failure where nothing may be missing."""

from __future__ import annotations

import os

import pytest

NO_SKIP = "ATLAS_TEST_NO_SKIP"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.getuid() == 0:
        return
    for_root = [item for item in items if item.get_closest_marker("root")]
    if for_root:
        config.hook.pytest_deselected(items=for_root)
        items[:] = [item for item in items if item not in for_root]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get(NO_SKIP) or exitstatus != pytest.ExitCode.OK:
        return
    if skipped := reporter.stats.get("skipped", []):
        reporter.write_line(f"{len(skipped)} skipped, but {NO_SKIP} is set: nothing may be missing here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
