"""A supervised group, and a TOML file, in a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.child import Strategy
from runtime.config.errors import ConfigErrors
from runtime.supervision.errors import RestartIntensityExceeded
from runtime.testing.actors import Crash, Echo, FailableActor
from runtime.testing.trees import running_group, running_tree

TOML = """
[actor.first]
actor = "runtime.testing.actors:FailableActor"
[actor.second]
actor = "runtime.testing.actors:FailableActor"
"""


async def test_a_group_is_restarted_as_its_strategy_says() -> None:
    actors = ("a", FailableActor()), ("b", FailableActor())
    async with running_group(*actors, strategy=Strategy.ONE_FOR_ALL) as tree:
        tree.ref("b").tell(Crash())
        await tree.up("b", 2)
        assert await (await tree.up("a", 2)).ask(Echo(3), within=1) == 3
        assert "a crashed" not in [event.line()[:9] for event in tree.events]


async def test_a_group_that_gives_up_fails_the_test() -> None:
    with pytest.raises(RestartIntensityExceeded):
        async with running_group(("a", FailableActor()), intensity=0) as tree:
            tree.ref("a").tell(Crash())
            await tree.up("a", 2)


@pytest.mark.parametrize("as_file", [True, False])
async def test_a_configuration_runs_from_its_file_or_text(as_file: bool, tmp_path: Path) -> None:
    (tmp_path / "supervisor.toml").write_text(TOML)
    async with running_tree(tmp_path / "supervisor.toml" if as_file else TOML) as tree:
        assert tree.system is not None
        tree.system.operations.kill("first", "to see it")
        assert (await tree.up("first", 2)).incarnation == 2
        assert await tree.ref("second").ask(Echo(1), within=1) == 1


async def test_a_configuration_that_is_wrong_starts_nothing() -> None:
    with pytest.raises(ConfigErrors):
        async with running_tree("[actor.x]\nactor = 'no.such:Thing'"):
            pass
