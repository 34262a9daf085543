"""An operator sets what an asset is worth, sees how old that is, and cannot set what is no rate."""

from __future__ import annotations

import getpass

import pytest

from tests.actors.commands.conftest import Atlas


def test_a_rate_is_set_and_listed_with_its_age(atlas: Atlas) -> None:
    assert atlas("rates", "list", text=True) == "no asset has a rate\n"
    assert atlas("rates", "set", "xtr", "1.30", text=True) == "one XTR is 1.3 RUB\n"
    [rate] = atlas("rates", "list")
    assert (rate["asset"], rate["rate"], rate["source"]) == ("XTR", "1.3", f"operator:{getpass.getuser()}")
    assert rate["age_seconds"] < 60


@pytest.mark.parametrize(
    ("asset", "rate"), [("RUB", "1"), ("UNVALUED", "1"), ("USDT", "x"), ("USDT", "0"), ("USDT", "NaN")]
)
def test_what_is_no_rate_is_refused_and_nothing_is_changed(atlas: Atlas, asset: str, rate: str) -> None:
    atlas("rates", "set", asset, rate, fails=65)
    assert atlas("rates", "list") == []
