"""How soon a change at a node is felt, as `python -m benchmarks.node` measures it."""

from __future__ import annotations

from benchmarks.node import TOGETHER, results, scenario


async def test_what_customers_notice_of_a_change_comes_within_a_second() -> None:
    figures = await scenario(1)
    assert len(figures.put_to_packets) == len(figures.delete_to_cut) == 1 and len(figures.end_to_cut) == TOGETHER
    assert min(figures.end_to_cut) >= 0, "nobody is cut before the end"
    judged = {result.name: result.met for result in results(figures) if result.met is not None}
    assert judged == {
        "PUT → packets pass: p99 of 1": True,
        "DELETE → open stream cut: p99 of 1": True,
        f"end of a key → open stream cut: p99 of {TOGETHER}": True,
    }
