"""The digest of a set of keys."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpn.agent.state.desired import DesiredSet, Entry
from vpn.digest import digest, digest_text, expiry_seconds, key_digest
from vpn.protocol import FLOW_VISION, KeySpec

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = KeySpec("customer", UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427"), "", ("a", "b"), NOON, 3)

specs = st.lists(
    st.builds(
        KeySpec,
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True),
        st.uuids(),
        st.sampled_from(["", FLOW_VISION]),
        st.sampled_from([(), ("vless",), ("a", "b")]),
        st.one_of(st.none(), st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))),
        st.integers(0, 100),
    ),
    unique_by=lambda spec: spec.key_id,
    max_size=20,
)


@settings(deadline=None)  # a busy machine is not a failure
@given(specs, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(keys: list[KeySpec], chooser: random.Random) -> None:
    shuffled = list(keys)
    chooser.shuffle(shuffled)
    assert digest(shuffled) == digest(keys)


@settings(deadline=None)  # a busy machine is not a failure
@given(specs)
def test_the_nodes_running_digest_is_that_of_its_keys(keys: list[KeySpec]) -> None:
    desired = DesiredSet()
    for sequence, spec in enumerate(keys, start=1):
        desired.apply(Entry(spec.key_id, spec.generation, spec, sequence, 0.0))
    assert desired.digest == digest(keys)
    for sequence, spec in enumerate(keys[::2], start=100):
        desired.apply(Entry(spec.key_id, spec.generation, None, sequence, 0.0))
    assert desired.digest == digest(keys[1::2])


def test_no_keys_have_the_empty_digest() -> None:
    assert digest([]) == "0" * 64 == DesiredSet().digest


@pytest.mark.parametrize(
    "changed",
    [
        attrs.evolve(SPEC, key_id="other"),
        attrs.evolve(SPEC, uuid=UUID(int=SPEC.uuid.int ^ 1)),
        attrs.evolve(SPEC, flow=FLOW_VISION),
        attrs.evolve(SPEC, inbounds=("a",)),
        attrs.evolve(SPEC, inbounds=()),
        attrs.evolve(SPEC, expires_at=None),
        attrs.evolve(SPEC, expires_at=NOON + timedelta(seconds=1)),
    ],
    ids=["key id", "uuid", "flow", "an inbound less", "no inbounds", "no end", "a second later"],
)
def test_whatever_has_an_effect_changes_the_digest(changed: KeySpec) -> None:
    assert key_digest(changed) != key_digest(SPEC)


@pytest.mark.parametrize(
    "same",
    [
        attrs.evolve(SPEC, generation=4),
        attrs.evolve(SPEC, inbounds=("b", "a")),
        attrs.evolve(SPEC, expires_at=NOON - timedelta(milliseconds=300)),
    ],
    ids=["generation", "order of inbounds", "parts of a second"],
)
def test_what_has_no_effect_does_not(same: KeySpec) -> None:
    assert key_digest(same) == key_digest(SPEC)


def test_ends_are_rounded_up_so_that_nobody_loses_paid_time() -> None:
    assert expiry_seconds(NOON) == int(NOON.timestamp())
    assert expiry_seconds(NOON + timedelta(microseconds=1)) == int(NOON.timestamp()) + 1
    assert expiry_seconds(None) is None


def test_a_digest_is_64_digits() -> None:
    assert digest_text(0xAB) == "0" * 62 + "ab"
    assert len(digest([SPEC])) == 64
