"""The start screen says who runs, where they listen, who is not ready, and what to type next."""

from __future__ import annotations

import os

from runtime.log_record import as_text
from runtime.log_writer import LogWriter
from runtime.start_screen import Line, render, show

LINES = [
    Line("admin", "running", {"listening": "http://127.0.0.1:8600", "next": "curl -s localhost:8600/readyz"}, True, ""),
    Line("pool.main", "running", {}, False, "no connection yet"),
    Line("agent", "down not needed", {}, False, "dead"),
]


def test_it_shows_facts_readiness_and_the_next_steps_of_the_configuration_first() -> None:
    rows = render("atlas", 1.25, LINES, "/run/a.sock", ("atlas customer add 42",)).splitlines()
    assert rows == [
        "",
        "atlas is up: 3 children in 1.25 s, 1 ready",
        "",
        "  admin      running  listening http://127.0.0.1:8600",
        "  pool.main  not ready: no connection yet",
        "  agent      down not needed",
        "",
        "  control socket  /run/a.sock",
        "",
        "next:",
        "  atlas customer add 42",
        "  curl -s localhost:8600/readyz",
        "",
    ]


def test_without_any_next_step_it_still_names_two() -> None:
    assert render("atlas", 0.1, [], "/s", ()).splitlines()[-3:-1] == ["  atlas status", "  atlas events --follow"]


def test_it_goes_out_through_the_logs_writer_without_a_prefix_and_redacted() -> None:
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    writer = LogWriter(as_text, out=out_write, err=err_write)
    writer.start()
    show(writer, "plain\n  123e4567-e89b-42d3-a456-426614174000\n")
    assert writer.stop()
    os.close(out_write)
    os.close(err_write)
    with os.fdopen(out_read) as out, os.fdopen(err_read) as err:
        text = out.read()
        assert text.startswith("plain\n  123e4567")
        assert "426614174000" not in text
        assert err.read() == ""
