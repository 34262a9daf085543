"""`[watchdog]`: limits that contradict each other are refused where they are written."""

from __future__ import annotations

import pytest

from runtime.config.loader import load_text
from runtime.config.problem import ConfigErrors


def refusal(text: str) -> str:
    """The one error of a configuration."""
    with pytest.raises(ConfigErrors) as caught:
        load_text(text)
    (problem,) = caught.value.problems
    return str(problem)


# S-814
def test_a_repair_limit_that_could_never_be_reached_is_refused() -> None:
    said = refusal("[watchdog]\nworker_stale = 900\nrepair_period = 3600\n")
    assert said.startswith(
        "supervisor.toml:3: watchdog.repair_period: must be at least repair_intensity × worker_stale = 4500 s"
    )
    assert said.endswith("got 3600")
    assert load_text("[watchdog]\nworker_stale = 900\nrepair_period = 4500\n").watchdog.repair_intensity == 5
