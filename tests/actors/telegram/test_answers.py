"""What an answer of the Bot API means. The bodies are those of its documentation and of its servers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.telegram.api import Outcome, read_answer


def body(code: int, description: str, **parameters: int) -> bytes:
    """An unsuccessful answer as documented."""
    fields: dict[str, object] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        fields["parameters"] = parameters
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("code", "description", "outcome"),
    [
        (403, "Forbidden: bot was blocked by the user", Outcome.UNREACHABLE),
        (403, "Forbidden: user is deactivated", Outcome.UNREACHABLE),
        (403, "Forbidden: bot can't initiate conversation with a user", Outcome.UNREACHABLE),
        (403, "Forbidden: bot was kicked from the group chat", Outcome.UNREACHABLE),
        (400, "Bad Request: chat not found", Outcome.UNREACHABLE),
        (400, "Bad Request: PEER_ID_INVALID", Outcome.UNREACHABLE),
        (400, "Bad Request: message is too long", Outcome.REFUSED),
        (400, "Bad Request: can't parse entities", Outcome.BAD_MARKUP),
        (401, "Unauthorized", Outcome.NO_ACCESS),
        (404, "Not Found", Outcome.NO_ACCESS),
        (500, "Internal Server Error", Outcome.UNKNOWN),
        (502, "Bad Gateway", Outcome.UNKNOWN),
    ],
)
def test_a_refusal_means_what_telegram_means(code: int, description: str, outcome: Outcome) -> None:
    answer = read_answer(code, body(code, description))
    assert answer.outcome is outcome
    assert description in answer.why


def test_a_taken_message_is_sent() -> None:
    assert read_answer(200, b'{"ok":true,"result":{"message_id":1}}').outcome is Outcome.DONE


def test_too_fast_says_for_how_long() -> None:
    answer = read_answer(429, body(429, "Too Many Requests: retry after 34", retry_after=34))
    assert (answer.outcome, answer.retry_after) == (Outcome.TOO_FAST, 34.0)
    assert read_answer(429, b"").retry_after > 0


def test_a_moved_group_says_where_to() -> None:
    answer = read_answer(400, body(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1001234567890))
    assert (answer.outcome, answer.moved_to) == (Outcome.MOVED, -1001234567890)


@pytest.mark.parametrize("status", [200, 400, 403, 502])
@given(content=st.binary(max_size=200))
def test_what_cannot_be_understood_is_not_taken_for_an_answer(status: int, content: bytes) -> None:
    assert read_answer(status, content).outcome is Outcome.UNKNOWN
    assert read_answer(status, b"<html>" + content).outcome is Outcome.UNKNOWN
