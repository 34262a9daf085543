"""The board: what viewers get of what changed, and what nobody pays for."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from runtime.desk.board import TICK, Board, Source


@attrs.define
class Shown:
    """Parts that a test changes; it counts how often they were rendered."""

    parts: dict[str, str] = attrs.field(factory=lambda: {"a": "1", "b": "1"})
    rendered: int = 0
    broken: bool = False

    def source(self) -> Source:
        return Source("shown", self.render)

    def render(self, language: str) -> Mapping[str, str]:
        self.rendered += 1
        if self.broken:
            raise RuntimeError("no")
        return {name: f"{language} {text}" for name, text in self.parts.items()}


async def test_a_viewer_gets_what_is_newer_once_and_skips_what_lies_between(nursery: trio.Nursery) -> None:
    board, shown = Board(), Shown()
    nursery.start_soon(board.run)
    with board.watch([shown.source()], "en") as watch:
        assert watch.newer(0) == {"a": "en 1", "b": "en 1"}
        seen = board.version
        for text in ("2", "3"):
            shown.parts["a"] = text
            board.touch()
            with trio.fail_after(5):
                await board.changed()
        assert watch.newer(seen) == {"a": "en 3"}
        assert watch.newer(board.version) == {}


async def test_what_is_watched_by_many_is_rendered_once_and_what_is_not_never(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    board, shown = Board(), Shown()
    nursery.start_soon(board.run)
    await trio.sleep(10 * TICK)
    assert shown.rendered == 0
    source = shown.source()
    with board.watch([source], "en"), board.watch([source], "en"), board.watch([source], "ru"):
        before = shown.rendered
        board.touch()
        await trio.sleep(TICK / 2)
        assert shown.rendered - before == 2, "once a language"
    before = shown.rendered
    board.touch()
    await trio.sleep(10 * TICK)
    assert shown.rendered == before


async def test_a_source_that_raises_keeps_its_parts_and_hurts_no_other(nursery: trio.Nursery) -> None:
    board, shown, other = Board(), Shown(), Shown({"c": "1"})
    nursery.start_soon(board.run)
    with board.watch([shown.source(), Source("other", other.render)], "en") as watch:
        seen = board.version
        shown.broken = True
        other.parts["c"] = "2"
        board.touch()
        with trio.fail_after(5):
            await board.changed()
        assert watch.newer(seen) == {"c": "en 2"}
        assert watch.newer(0) == {"a": "en 1", "b": "en 1", "c": "en 2"}
