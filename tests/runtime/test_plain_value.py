"""What an actor shows of itself, as plain data: bounded, whatever it is."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping

import pytest

from runtime.plain_value import KEPT, LIVE, Bounds, plain_mapping


class Colour(enum.Enum):
    RED = "red"


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit


class Endless(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        return self

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield str(number)
            number += 1

    def __len__(self) -> int:
        return 2**60


def itself() -> dict[str, object]:
    found: dict[str, object] = {}
    found["me"] = found
    found["us"] = [found, found]
    return found


def test_plain_values_are_shown_as_they_are() -> None:
    value = {"done": [1, 2.5, None, True], "by": {"a": ("b", "c")}, "colour": Colour.RED}
    assert plain_mapping(value) == {"done": [1, 2.5, None, True], "by": {"a": ["b", "c"]}, "colour": "red"}


@pytest.mark.parametrize("bounds", [LIVE, KEPT])
@pytest.mark.parametrize(
    "value",
    [itself(), Endless(), {"x": Hostile()}, {Hostile(): 1}, {"n": 10**1_000_000}, {"t": "x" * 10_000_000}, 3, None, []],
)
def test_anything_is_json_of_bounded_size(value: object, bounds: Bounds) -> None:
    assert len(json.dumps(plain_mapping(value, bounds))) < 1_000_000


def test_names_and_texts_are_redacted() -> None:
    shown = plain_mapping({"password": "hunter2", "url": "postgresql://a:hunter2@h", "token": ["hunter2"]})
    assert "hunter2" not in json.dumps(shown)


def test_what_is_left_out_is_said() -> None:
    shown = plain_mapping({"rows": list(range(40)), **{str(number): 0 for number in range(40)}}, KEPT)
    assert shown["rows"] == [*range(30), "… 10 more"]
    assert shown["…"] == "11 more"
