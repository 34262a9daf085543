from __future__ import annotations

from pathlib import Path

import trio.testing

from examples.sweeper.sweeper import Sweeper
from runtime import WakeUp
from runtime.testing import actor_system


async def test_it_sweeps_when_woken_page_by_page_and_goes_on_beside_a_file_that_cannot_go(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.tmp").touch()
    (tmp_path / "2.tmp").unlink()
    (tmp_path / "2.tmp").mkdir()
    async with actor_system() as system:
        sweeper = await system.start(Sweeper(directory=tmp_path, interval=3600.0, page_size=10))
        sweeper.tell(WakeUp())
        await trio.testing.wait_all_tasks_blocked()
        assert [file.name for file in tmp_path.iterdir()] == ["2.tmp"]
        last = system.address(sweeper).inspect()["actor"]
    assert isinstance(last, dict)
    assert (last["last"]["done"], last["last"]["failed"]) == (4, 1)
