"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.misbehaving import House


@pytest.fixture
def house() -> Iterator[House]:
    """A house of misbehaving children; fails the test if one of them ever ran twice at once."""
    house = House()
    yield house
    assert house.detonated == [], "a child ran twice at once"
