"""`[watchdog]`: limits that contradict each other are refused where they are written."""

from __future__ import annotations

import pytest

from runtime.config.errors import ConfigErrors
from runtime.config.loader import load_text
from runtime.watchdog.watchdog import limits_of

HERE = "tests.runtime.config.actors_for_config"


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


# S-809
def test_a_timer_that_would_come_before_a_stale_limit_is_refused() -> None:
    said = refusal("[watchdog]\nworker_stale = 200\ngil_timer = 210\n")
    assert said.startswith(
        "supervisor.toml:3: watchdog.gil_timer: must be more than the longest stale limit and two intervals = 210 s"
    )
    assert limits_of(load_text("[watchdog]\nworker_stale = 200\ngil_timer = 211\n").watchdog).gil_timer == 211
    assert limits_of(load_text("").watchdog).gil_timer is None


# S-808
def test_when_a_loop_is_reported_as_blocked_can_be_set() -> None:
    assert limits_of(load_text("[watchdog]\nloop_blocked = 2.5\n").watchdog).blocked == 2.5
    assert refusal("[watchdog]\nloop_blocked = 0\n").startswith("supervisor.toml:2: watchdog.loop_blocked: must be > 0")


def test_a_health_check_that_nobody_is_called_is_refused_with_the_nearest_name() -> None:
    actor = f'[actor.probes]\nactor = "{HERE}:Plain"\n'
    assert refusal('[watchdog]\nhealthcheck = "probe"\n' + actor) == (
        'supervisor.toml:2: watchdog.healthcheck: there is no actor "probe"; did you mean "probes"?'
    )
    assert load_text('[watchdog]\nhealthcheck = "probes"\n' + actor).watchdog.healthcheck == "probes"
    assert load_text(actor).watchdog.healthcheck == "healthcheck", "a tree without one is legal"
