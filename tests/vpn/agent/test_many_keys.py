"""A node with thousands of keys, as `python -m benchmarks.node_keys` measures it with fifty thousand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.node_keys import QUICK_KEYS, results, scenario
from tests.fork_server import ForkServer


async def test_a_node_that_lost_its_keys_is_filled_again_and_hurts_nobody_who_is_served(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    found = results(await scenario(tmp_path, QUICK_KEYS, fork_server), QUICK_KEYS)
    assert [result.name for result in found if result.met is False] == []
