from pathlib import Path

import attrs

from runtime import Actor, Message, Strategy, handler
from runtime.testing import running_group, running_tree

TOML = f"""
[actor.reader]
actor = "{__name__}:Part"
[actor.writer]
actor = "{__name__}:Part"
needs = ["reader"]
"""


@attrs.frozen
class Break(Message): ...


@attrs.define(eq=False)
class Part(Actor):
    @handler
    async def break_(self, _: Break) -> None:
        raise RuntimeError("told to")


async def test_the_two_fall_together() -> None:
    async with running_group(("reader", Part()), ("writer", Part()), strategy=Strategy.REST_FOR_ONE) as tree:
        tree.ref("reader").tell(Break())
        await tree.up("reader", 2)
        await tree.up("writer", 2)


async def test_a_file_runs(tmp_path: Path) -> None:
    (tmp_path / "supervisor.toml").write_text(TOML)
    async with running_tree(tmp_path / "supervisor.toml") as tree:
        tree.ref("writer").tell(Break())
        assert (await tree.up("writer", 2)).name == "writer"
