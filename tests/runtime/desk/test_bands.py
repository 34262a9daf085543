"""Bands: an hour of states, merged, bounded, and none of actors that are gone."""

from __future__ import annotations

from runtime.desk.bands import Bands
from runtime.desk.charts import band
from runtime.desk.history import HOUR


def test_equal_neighbours_are_one_run_and_an_hour_is_kept() -> None:
    bands = Bands()
    for word in ["idle"] * HOUR + ["stuck"] * 3 + ["busy"]:
        bands.look({"one": word})
    assert bands.runs("one") == [("idle", HOUR - 4), ("stuck", 3), ("busy", 1)]
    assert bands.runs("another") == []


def test_those_that_were_in_trouble_longest_come_first_and_the_calm_not_at_all() -> None:
    bands = Bands()
    bands.look({"calm": "busy", "short": "down", "long": "waiting in a circle"})
    bands.look({"calm": "idle", "short": "idle", "long": "starved"})
    assert bands.troubled() == ["long", "short"]


def test_an_actor_that_is_gone_is_forgotten_after_an_hour() -> None:
    bands = Bands()
    bands.look({"gone": "parked"})
    for _ in range(HOUR - 1):
        bands.look({"here": "idle"})
    assert bands.runs("gone") == [("parked", 1), ("", HOUR - 1)]
    bands.look({"here": "idle"})
    assert bands.runs("gone") == [] and bands.troubled() == []


def test_a_band_ends_at_its_right_edge_and_trouble_is_higher_than_calm() -> None:
    svg = band([("idle", 2), ("", 1), ("parked", 1)], 10, '<b>"x"')
    assert '<rect class="calm" x="6" y="3" width="2" height="6"/>' in svg
    assert '<rect class="down" x="9" y="0" width="1" height="12"/>' in svg
    assert svg.count("<rect") == 2 and "<b>" not in svg
