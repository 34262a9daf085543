"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.supervision.misbehaving import Harness


@pytest.fixture
def harness() -> Iterator[Harness]:
    """A harness of misbehaving children; fails the test if one of them ever ran twice at once."""
    harness = Harness()
    yield harness
    assert harness.detonated == [], "a child ran twice at once"
