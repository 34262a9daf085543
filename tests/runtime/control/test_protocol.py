"""The lines on the control socket: whatever comes in is a request or an error, whatever goes out is JSON."""

from __future__ import annotations

import enum
import json
import math
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.config import Secret
from runtime.control.protocol import ControlError, decode_request, encode, error_line
from runtime.errors import StartRefused


class Color(enum.Enum):
    RED = "red"


@attrs.frozen
class Thing:
    color: Color
    hidden: str = attrs.field(default="h", repr=False)
    secret: Secret = attrs.field(factory=lambda: Secret("hunter2"))


def test_a_request_is_a_command_and_its_arguments() -> None:
    assert decode_request(b'{"command": "kill", "arguments": {"name": "x"}}') == ("kill", {"name": "x"}, None, None)
    line = b'{"command": "status", "token": "t", "config": "/etc/atlas.toml"}'
    assert decode_request(line) == ("status", {}, "t", "/etc/atlas.toml")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b'{"command": 1}',
        b'{"command": "a", "arguments": []}',
        b'{"command": "a", "b": 1}',
        b'{"command": "a", "token": 1}',
        b'{"command": "a", "config": 1}',
    ],
)
def test_anything_else_is_a_usage_error(line: bytes) -> None:
    with pytest.raises(ControlError) as raised:
        decode_request(line)
    assert raised.value.exit_code == 64


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_request_or_a_usage_error(line: bytes) -> None:
    try:
        command, arguments, token, config = decode_request(line)
    except ControlError as error:
        assert error.exit_code == 64
    else:
        assert isinstance(command, str)
        assert isinstance(arguments, dict)
        assert token is None or isinstance(token, str)
        assert config is None or isinstance(config, str)


def test_what_commands_return_becomes_one_line_of_json_without_secrets() -> None:
    line = encode({"result": {"thing": Thing(Color.RED), "path": Path("/x"), "set": {1}, "error": ValueError("bad\n")}})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"hunter2" not in line
    assert json.loads(line)["result"] == {
        "thing": {"color": "red", "secret": "***"},
        "path": "/x",
        "set": [1],
        "error": "bad\n",
    }
    assert encode({"a": "\udce4"}) == b'{"a": "\\udce4"}\n'


# S-903
def test_what_a_running_system_answers_is_redacted_by_text_and_by_name() -> None:
    link = "vless://0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f@h:1"
    found = {"error": f"cannot reach {link}", "why": ("as postgresql://atlas:hunter2@db/atlas",), "api_token": "t0p"}
    line = encode({"result": found}, redacted=True)
    assert json.loads(line)["result"] == {
        "error": "cannot reach vless://***",
        "why": ["as postgresql://atlas:***@db/atlas"],
        "api_token": "***",
    }
    assert json.loads(encode({"link": link})) == {"link": link}, "a command's own output may be what it was asked for"


# S-904
def test_no_character_of_an_answer_moves_a_terminal() -> None:
    line = encode({"a": "\x1b[31m\x9b31m\u202e\u2028\n"})
    assert line == b'{"a": "\\u001b[31m\\u009b31m\\u202e\\u2028\\n"}\n'
    assert json.loads(line) == {"a": "\x1b[31m\x9b31m\u202e\u2028\n"}


def test_figures_that_json_does_not_have_become_text() -> None:
    line = encode({"ages": [math.inf, -math.inf, math.nan, 1.5], "limit": math.inf})
    strict = json.loads(line, parse_constant=pytest.fail)
    assert strict == {"ages": ["inf", "-inf", "nan", 1.5], "limit": "inf"}


def test_our_errors_are_told_in_their_words_and_others_with_their_type() -> None:
    assert error_line(StartRefused("held", 69)) == {"error": {"message": "held", "exit_code": 69}}
    assert error_line(KeyError("x")) == {"error": {"message": "KeyError: 'x'", "exit_code": 70}}
