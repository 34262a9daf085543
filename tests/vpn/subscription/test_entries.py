"""Labels: one for each link, no two the same, on one line, never a word of the configuration itself."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings

from tests.vpn.subscription.samples import lists
from vpn.link import VlessLink
from vpn.subscription.entries import AUTO, GROUP, labels

ONE = UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")


def named(*names: str) -> list[VlessLink]:
    """A link for each name."""
    return [VlessLink(ONE, "node.example", 443, name=name) for name in names]


@settings(deadline=None)  # a busy machine is not a failure
@given(lists)
def test_labels_are_unique_printable_and_say_something(links: list[VlessLink]) -> None:
    found = labels(links)
    assert len(set(found)) == len(found) == len(links)
    for label in found:
        assert label.strip() == label != ""
        assert len(label.splitlines()) == 1


def test_equal_names_are_numbered() -> None:
    assert labels(named("Berlin", "Berlin", "Berlin 2")) == ["Berlin", "Berlin 2", "Berlin 2 2"]


@pytest.mark.parametrize("word", [GROUP, AUTO, "DIRECT", "REJECT", "direct"])
def test_a_word_of_the_configuration_is_not_taken_over(word: str) -> None:
    assert labels(named(word)) == [f"{word} 2"]


def test_a_link_without_a_name_is_called_by_its_address() -> None:
    assert labels(named("", "\n\t")) == ["node.example:443", "node.example:443 2"]


def test_names_keep_their_letters_flags_and_emoji() -> None:
    assert labels(named("🇩🇪 Берлин 👩‍💻")) == ["🇩🇪 Берлин 👩‍💻"]
