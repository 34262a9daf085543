from __future__ import annotations

import trio

from runtime.correlation import correlated, correlation_id, new_correlation_id
from runtime.redaction import redact


def test_an_id_is_carried_inside_and_gone_outside() -> None:
    with correlated("outer") as outer:
        assert outer == correlation_id.get() == "outer"
        with correlated() as inner:
            assert correlation_id.get() == inner != "outer"
        assert correlation_id.get() == "outer"
    assert correlation_id.get() == ""


async def test_tasks_started_inside_inherit_it() -> None:
    seen: list[str] = []

    async def child() -> None:
        seen.append(correlation_id.get())

    async with trio.open_nursery() as nursery:
        with correlated("c1"):
            nursery.start_soon(child)
    assert seen == ["c1"]


def test_ids_differ_and_redaction_leaves_them_alone() -> None:
    first, second = new_correlation_id(), new_correlation_id()
    assert first != second
    assert redact(f"correlation={first}") == f"correlation={first}"
