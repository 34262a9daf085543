from __future__ import annotations

import json
import logging
import math

import pytest

from runtime.log.record import MAX_FIELD, MAX_MESSAGE, Record, as_json, as_text, plain

AT = 1_782_907_200.1234
KEY = "0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f"


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def fail() -> None:
    raise ValueError(f"no such key {KEY}")


def raised() -> ValueError:
    with pytest.raises(ValueError, match="no such key") as caught:
        fail()
    return caught.value


def test_text_has_time_level_actor_message_and_fields() -> None:
    record = Record(
        AT,
        logging.WARNING,
        "actors.pool.pool",
        "slow lease",
        {"waited": 1.5, "label": "fast expiry", "pool": "main", "ok": False},
        actor="pool.main",
        correlation="c0ffee",
    )
    assert as_text(record) == (
        '2026-07-01T12:00:00.123Z WARNING  pool.main slow lease waited=1.5 label="fast expiry" pool=main ok=False '
        "correlation=c0ffee\n"
    )
    assert as_text(Record(AT, logging.INFO, "actors.pool.pool", "up")).split()[2] == "actors.pool.pool"


def test_json_has_the_same_and_the_facts_for_machines() -> None:
    record = Record(
        AT,
        logging.ERROR,
        "atlas.events",
        "pool.main crashed",
        {"waited": 1.5},
        actor="pool.main",
        correlation="c0ffee",
        facts={"event": "Crashed", "incarnation": 3},
    )
    assert json.loads(as_json(record)) == {
        "time": "2026-07-01T12:00:00.123Z",
        "level": "ERROR",
        "logger": "atlas.events",
        "actor": "pool.main",
        "correlation": "c0ffee",
        "message": "pool.main crashed",
        "waited": 1.5,
        "event": "Crashed",
        "incarnation": 3,
    }
    assert "Crashed" not in as_text(record)


# S-904
def test_a_field_cannot_pass_itself_off_as_the_level() -> None:
    entry = json.loads(as_json(Record(AT, logging.INFO, "x", "m", {"level": "CRITICAL", "time": 0, "traceback": "t"})))
    assert entry["level"] == "INFO"
    assert (entry["field_level"], entry["field_time"], entry["field_traceback"]) == ("CRITICAL", 0, "t")


# S-904
def test_a_newline_or_an_escape_forges_no_line_and_paints_nothing() -> None:
    evil = "Bob\n2026 CRITICAL all is lost \x1b[31m\u2028"
    for record in (Record(AT, 20, "x", evil), Record(AT, 20, "x", "hello", {"name": evil})):
        assert as_text(record).count("\n") == 1
        assert "\x1b" not in as_text(record)
        assert len(as_text(record).splitlines()) == 1
        assert as_json(record).count("\n") == 1


@pytest.mark.parametrize("render", [as_text, as_json])
def test_message_fields_facts_and_traceback_are_redacted(render: object) -> None:
    assert callable(render)
    record = Record(
        AT,
        logging.ERROR,
        "x",
        f"key {KEY}",
        {"link": f"vless://{KEY}@h:1", "password": "hunter2", "error": raised()},
        facts={"key": KEY},
        error=raised(),
    )
    text = render(record)
    assert KEY not in text
    assert "hunter2" not in text
    assert "0f4cd2ab…" in text
    assert "vless://***" in text
    assert "ValueError" in text


def test_a_traceback_is_indented_below_its_line() -> None:
    lines = as_text(Record(AT, logging.ERROR, "x", "failed", error=raised())).splitlines()
    assert lines[0].endswith("x failed")
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: no such key 0f4cd2ab…"
    assert all(line.startswith("    ") for line in lines[1:])


def test_values_become_plain_at_once_and_bounded() -> None:
    queue = [1]
    record = Record(AT, 20, "x", "m" * (MAX_MESSAGE + 10), {"queue": queue, "big": "f" * (MAX_FIELD + 5)})
    queue.append(2)
    assert record.fields["queue"] == "[1]"
    assert record.message.endswith("… (10 more characters)")
    assert str(record.fields["big"]).endswith("… (5 more characters)")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (math.inf, "inf"),
        (ValueError("no"), "ValueError: no"),
        ({"a": 1}, "{'a': 1}"),
        (Unshowable(), "<Unshowable that cannot be shown: RuntimeError>"),
    ],
)
def test_any_value_can_be_shown(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert json.loads(as_json(Record(AT, 20, "x", "m", {"v": value})))["v"] == expected
