"""What is remembered of the backend across restarts, whatever happened to the file meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vpn.agent.heard import HeardFile
from vpn.agent.settings import ExpirySettings

EXPIRY = ExpirySettings(grace=1000.0, silence=100.0, settle=50.0)


def test_without_a_file_the_backend_counts_as_just_heard(tmp_path: Path) -> None:
    contact = HeardFile(tmp_path).load(EXPIRY, 5000.0)
    assert contact.grace_at(5099.0) == 0 and contact.grace_at(5100.0) == 1000


def test_when_it_was_heard_and_how_long_it_has_to_catch_up_are_kept(tmp_path: Path) -> None:
    contact = HeardFile(tmp_path).load(EXPIRY, 5000.0)
    contact.heard(6000.0)
    HeardFile(tmp_path).remember(contact, 6000.0)
    again = HeardFile(tmp_path).load(EXPIRY, 6010.0)
    assert (again.last_heard, again.settled_at) == (6000.0, 6050.0)


def test_it_is_written_at_most_once_a_minute_but_the_end_of_a_silence_at_once(tmp_path: Path) -> None:
    file = HeardFile(tmp_path)
    contact = file.load(EXPIRY, 5000.0)
    for now in (5000.0, 5059.0):
        contact.heard(now)
        file.remember(contact, now)
    assert file.path.stat().st_mtime == 5000.0
    contact.heard(5061.0)
    file.remember(contact, 5061.0)
    assert file.path.stat().st_mtime == 5061.0 and file.path.read_bytes() == b""
    contact.heard(5061.0 + EXPIRY.silence)
    file.remember(contact, 5061.0 + EXPIRY.silence)
    assert file.path.stat().st_mtime == 5161.0 and float(file.path.read_text()) == 5211.0


@pytest.mark.parametrize(
    ("heard", "content", "last_heard", "settled_at"),
    [
        (9000.0, "9050.000", 5000.0, 5050.0),
        (4900.0, "rubbish", 4900.0, float("-inf")),
        (4900.0, "nan", 4900.0, float("-inf")),
    ],
    ids=["the clock was set back", "damaged", "no number"],
)
def test_what_cannot_be_makes_no_grace_longer(
    tmp_path: Path, heard: float, content: str, last_heard: float, settled_at: float
) -> None:
    (tmp_path / "heard").write_text(content)
    os.utime(tmp_path / "heard", (heard, heard))
    contact = HeardFile(tmp_path).load(EXPIRY, 5000.0)
    assert (contact.last_heard, contact.settled_at) == (last_heard, settled_at)


def test_a_disk_that_takes_nothing_is_tried_once_a_minute_and_fails_nobody(tmp_path: Path) -> None:
    file = HeardFile(tmp_path)
    contact = file.load(EXPIRY, 5000.0)
    (tmp_path / "heard.new").mkdir()  # in the way
    for now in (6000.0, 6001.0):
        contact.heard(now)
        file.remember(contact, now)
    assert not file.path.exists()
    (tmp_path / "heard.new").rmdir()
    file.remember(contact, 6030.0)
    assert not file.path.exists()
    file.remember(contact, 6061.0)
    assert float(file.path.read_text()) == 6050.0
