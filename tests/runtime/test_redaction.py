from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.redaction import redact, redact_value

KEY = "0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f"


# S-903
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key {KEY} is active", "key 0f4cd2ab… is active"),
        (f"key {KEY.upper()} is active", "key 0F4CD2AB… is active"),
        (f"id={KEY},", "id=0f4cd2ab…,"),
        (f"key_{KEY}_old", "key_0f4cd2ab…_old"),
        (KEY.replace("-", ""), "0f4cd2ab…"),
        ("sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", None),
        (f"vless://{KEY}@vpn.example:443?security=reality&pbk=abc#name sent", "vless://*** sent"),
        (f'{{"link": "vless://{KEY}@h:1"}}', '{"link": "vless://***"}'),
        ("VLESS://abc@h:1", "VLESS://***"),
        ("trojan://pw@h:443", "trojan://***"),
        ("postgresql://atlas:hunter2@db:5432/atlas down", "postgresql://atlas:***@db:5432/atlas down"),
        ("postgresql://atlas:p@ss/w@db/atlas", "postgresql://atlas:***@db/atlas"),
        ("postgres://:hunter2@db/atlas", "postgres://:***@db/atlas"),
        ("postgresql://atlas@db:5432/atlas", None),
        ("host=db user=atlas password=hunter2 dbname=atlas", "host=db user=atlas password=*** dbname=atlas"),
        ("password='it\\'s me' user=x", "password='***' user=x"),
        ('{"password": "hunter2", "user": "x"}', '{"password": "***", "user": "x"}'),
        ("PGPASSWORD=hunter2", "PGPASSWORD=***"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("authorization=Basic dXNlcjpwdw==", "authorization=Basic ***"),
        ("headers={'Authorization': 'Bearer abcdef'}", "headers={'Authorization': '***'}"),
        ("https://h/x?token=abcdef&page=2", "https://h/x?token=***&page=2"),
        ("api_key: abcdef", "api_key: ***"),
        ("bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", "bot123456789:***"),
        ("fencing token=17 expired", None),
        ("tariff basic price 149, plus 299", None),
        ("password=None", None),
        ("listening on http://127.0.0.1:8600/metrics", None),
        ("at 2026-07-01T12:00:00.123Z the pool had 15 leases", None),
        ("", None),
    ],
)
def test_secrets_are_taken_out_and_the_rest_is_left(text: str, expected: str | None) -> None:
    assert redact(text) == (text if expected is None else expected)


# S-903
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("password", "hunter2", "***"),
        ("db_password", "x y z", "***"),
        ("node_token", "abcdef", "***"),
        ("token", "17", "17"),
        ("actor", "password", "password"),
        ("token_bucket", "full", "full"),
        ("key", f"{KEY}", "0f4cd2ab…"),
    ],
)
def test_a_field_named_like_a_secret_is_masked_whole(name: str, value: str, expected: str) -> None:
    assert redact_value(name, value) == expected


# S-903
@given(st.uuids(), st.text(max_size=30), st.text(max_size=30))
def test_no_full_uuid_survives_in_any_surroundings(key: uuid.UUID, before: str, after: str) -> None:
    assert str(key) not in redact(f"{before} {key} {after}")


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 20_000,
        "://" * 7_000,
        "password" * 2_500,
        "password='" * 2_000,
        "a://b:" * 3_000,
        "0" * 20_000,
        "-" * 20_000,
        "bearer " * 3_000,
        "token" + " " * 20_000,
        "authorization:" * 1_500,
        "1234567:" * 2_500,
    ],
)
def test_a_hostile_line_is_not_slow(hostile: str) -> None:
    start = time.process_time()
    redact(hostile)
    assert time.process_time() - start < 0.5
