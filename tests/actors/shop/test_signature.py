"""A signed request counts only as it was made, by whom it was made, when it was made."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.shop.signature import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WINDOW_SECONDS,
    SignatureRefused,
    Signed,
    read_keys,
    sign_request,
    verify_signature,
)
from runtime.config import Secret

NOW = 1_700_000_000
NONCE = "0123456789abcdef"
KEYS = {"front": Secret("f" * 32), "older": Secret("o" * 32)}


def headers(
    key: str = "front",
    at: int = NOW,
    nonce: str = NONCE,
    method: str = "POST",
    target: str = "/v1/x",
    body: bytes = b"{}",
) -> dict[str, str]:
    signature = sign_request(KEYS.get(key, Secret("n" * 32)), at, nonce, method, target, body)
    return {KEY_HEADER: key, TIMESTAMP_HEADER: str(at), NONCE_HEADER: nonce, SIGNATURE_HEADER: signature}


def test_the_signature_is_what_the_documentation_says() -> None:
    # printf '1700000000\n0123456789abcdef\nPOST\n/v1/x\n{}' | openssl dgst -sha256 -hmac ffffffffffffffffffffffffffffffff
    assert headers()[SIGNATURE_HEADER] == "358896609f608fadaae8d6f46904addcedee1b32042b2bcd7942e41fdf85a080"


def test_the_example_of_the_documentation_signs_what_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "shop.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    sent: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request) -> io.BytesIO:
        sent.append(request)
        return io.BytesIO(b"{}")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    names: dict[str, Any] = {"SECRET": "f" * 32}
    exec(code, names)  # noqa: S102 - our own page
    assert names["call"]("POST", "/customers/1/quote?a=1", {"days": 30}) == {}
    [request] = sent
    given = {name.lower(): value for name, value in request.header_items()}
    assert isinstance(request.data, bytes)
    now = int(given[TIMESTAMP_HEADER])
    assert (
        verify_signature(KEYS, given, "POST", "/shop/v1/customers/1/quote?a=1", request.data, now=now).key_id == "front"
    )


@pytest.mark.parametrize("key", ["front", "older"])
def test_every_key_that_is_there_is_accepted_so_that_keys_can_rotate(key: str) -> None:
    assert verify_signature(KEYS, headers(key), "POST", "/v1/x", b"{}", now=NOW) == Signed(key, NONCE)


def test_a_key_that_was_taken_away_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        verify_signature({"front": KEYS["front"]}, headers("older"), "POST", "/v1/x", b"{}", now=NOW)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [("PUT", "/v1/x", b"{}"), ("POST", "/v1/y", b"{}"), ("POST", "/v1/x?a=1", b"{}"), ("POST", "/v1/x", b"{} ")],
)
def test_nothing_of_a_request_can_be_changed(method: str, target: str, body: bytes) -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        verify_signature(KEYS, headers(), method, target, body, now=NOW)


@pytest.mark.parametrize("name", [KEY_HEADER, TIMESTAMP_HEADER, NONCE_HEADER])
def test_no_signed_header_can_be_changed_or_left_out(name: str) -> None:
    changed = {KEY_HEADER: "older", TIMESTAMP_HEADER: str(NOW + 1), NONCE_HEADER: NONCE[::-1]}[name]
    with pytest.raises(SignatureRefused, match="does not fit"):
        verify_signature(KEYS, headers() | {name: changed}, "POST", "/v1/x", b"{}", now=NOW)
    with pytest.raises(SignatureRefused, match=name):
        verify_signature(
            KEYS, {key: value for key, value in headers().items() if key != name}, "POST", "/v1/x", b"{}", now=NOW
        )


@pytest.mark.parametrize("off", [WINDOW_SECONDS + 1, -WINDOW_SECONDS - 1])
def test_a_request_from_another_time_is_refused_and_told_how_far_off_it_is(off: int) -> None:
    with pytest.raises(SignatureRefused, match="301 s off"):
        verify_signature(KEYS, headers(), "POST", "/v1/x", b"{}", now=NOW + off)


@pytest.mark.parametrize("off", [WINDOW_SECONDS, -WINDOW_SECONDS])
def test_the_window_is_closed(off: int) -> None:
    assert verify_signature(KEYS, headers(), "POST", "/v1/x", b"{}", now=NOW + off).key_id == "front"


@given(
    st.dictionaries(
        st.sampled_from([KEY_HEADER, TIMESTAMP_HEADER, NONCE_HEADER, SIGNATURE_HEADER]), st.text(max_size=80)
    ),
    st.binary(max_size=40),
)
def test_hostile_headers_are_refused_and_raise_nothing_else(found: dict[str, str], body: bytes) -> None:
    with pytest.raises(SignatureRefused):
        verify_signature(KEYS, found, "POST", "/v1/x", body, now=NOW)


def test_keys_are_read_a_line_each() -> None:
    assert read_keys(f"# rotated yearly\n\nfront {'f' * 32}\n older   {'o' * 32} \n") == KEYS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Front " + "f" * 32, "line 1"),
        ("\nfront short", "line 2: the secret of front has under 32"),
        ("front", "line 1: the secret of front has under 32"),
        (f"front {'a' * 32}\nfront {'b' * 32}", "line 2: front is there twice"),
    ],
)
def test_a_bad_line_is_named_and_its_secret_is_not(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_keys(text)
    assert "aaaa" not in str(caught.value) and "short" not in str(caught.value)
