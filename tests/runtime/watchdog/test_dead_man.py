"""The dead man's switch: pinged while all is well, from outside of the loop, and silent as soon as it is not."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runtime.config import Secret
from runtime.watchdog.dead_man import PINGS, DeadManSwitch
from tests.runtime.atlas_process import PATIENCE, AtlasProcess, atlas, short_directory, write_config


class Counter:
    """Somebody who counts pings."""

    def __init__(self) -> None:
        self.pings: queue.Queue[str] = queue.Queue()
        self.status = 200
        counter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                counter.pings.put(self.path)
                self.send_response(counter.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the base class calls it
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/ping/a-secret-path"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def next(self) -> str:
        return self.pings.get(timeout=PATIENCE)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def counter() -> Iterator[Counter]:
    counter = Counter()
    yield counter
    counter.close()


def until_counted(outcome: str, more: int) -> None:
    """Wait for so many more rounds of this outcome."""
    wanted = PINGS.labels(outcome).value + more
    ends = time.monotonic() + PATIENCE
    while PINGS.labels(outcome).value < wanted:
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


def test_it_is_pinged_while_all_is_well_and_silent_otherwise(counter: Counter) -> None:
    why = [""]

    def is_well() -> str:
        if why[0] == "raise":
            raise RuntimeError("dictionary changed size during iteration")
        return why[0]

    switch = DeadManSwitch(Secret(counter.url), 0.01, is_well)
    switch.start()
    try:
        assert counter.next() == "/ping/a-secret-path"
        for trouble in ("a heartbeat is stale", "raise"):
            why[0] = trouble
            until_counted("withheld", 2)
            while not counter.pings.empty():
                counter.pings.get()
            until_counted("withheld", 5)
            assert counter.pings.empty(), "silence is the alarm"
            why[0] = ""
            counter.next()
        counter.status = 500
        until_counted("failed", 2)
        counter.status = 200
        until_counted("sent", 2)
    finally:
        switch.stop()


def test_a_frozen_loop_stops_the_pings_and_a_thaw_brings_them_back(counter: Counter) -> None:
    more = "[watchdog]\nping_interval = 0.1\nloop_blocked = 1.0\ninterval = 0.2\n"
    with short_directory() as place:
        write_config(place, '[actor.echo]\nactor = "{actors}:Sleepyhead"\n', more=more)
        process = AtlasProcess(place, env={"ATLAS__WATCHDOG__PING_URL": counter.url})
        try:
            process.until("next:")
            counter.next()
            process.call("tell", name="echo", message="Doze", fields={"seconds": 8.0})
            process.until("the dead man's switch is pinged no more")
            while not counter.pings.empty():
                counter.pings.get()
            process.until("the dead man's switch is pinged again")
            counter.next()
            assert (
                "a-secret-path" not in atlas(place, "config", "watchdog", ATLAS__WATCHDOG__PING_URL=counter.url).stdout
            )
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            assert "a-secret-path" not in process.output
        finally:
            process.close()


def test_an_address_that_is_none_is_refused() -> None:
    with short_directory() as place:
        write_config(place, "")
        refused = atlas(place, "check", ATLAS__WATCHDOG__PING_URL="file:///etc/passwd")
        assert refused.returncode == 78
        assert "must be an address that begins with http" in refused.stderr
        assert "passwd" not in refused.stderr
