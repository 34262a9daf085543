"""X25519: the RFC's own numbers, and the form in which Xray reads keys."""

from __future__ import annotations

import pytest

from vpn.xray import x25519


def test_the_function_gives_the_numbers_of_rfc_7748() -> None:
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519.multiply(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    base = (9).to_bytes(32, "little")
    assert x25519.multiply(base, base).hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"


def test_both_sides_of_an_exchange_come_to_the_same_secret() -> None:
    one, other = x25519.generate(), x25519.generate()
    assert one.private != other.private
    assert x25519.multiply(x25519.decode(one.private), x25519.decode(other.public)) == x25519.multiply(
        x25519.decode(other.private), x25519.decode(one.public)
    )
    assert x25519.public_of(one.private) == one.public


@pytest.mark.parametrize("text", ["", "short", "A" * 42, "A" * 44, "A" * 42 + "!", "ключ"])
def test_what_is_not_a_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="32 bytes") as caught:
        x25519.decode(text)
    assert not text or text not in str(caught.value)


def test_a_private_key_is_not_shown() -> None:
    keys = x25519.generate()
    assert keys.private not in repr(keys)
