"""The dead man's switch: a ping to a URL of the operator's while all is well, so that silence is the alarm.

It is a thread of its own that asks plain slots whether all is well, so a loop that stands, a process that is gone and a machine
without power say the same: nothing. Whoever counts the pings (healthchecks.io, Uptime Kuma, a cron job elsewhere) must be
outside of this machine.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from runtime.config.secret import Secret
from runtime.log.logs import get_logger
from runtime.metrics import counter, gauge

PING_SECONDS = 10.0
"""Seconds that one ping may take."""

PINGS = counter(
    "atlas_dead_man_pings_total",
    "Rounds of the dead man's switch: sent, failed (nobody took it), withheld (not all was well).",
    labels=("outcome",),
)
ARMED = gauge("atlas_dead_man_armed", "1 while [watchdog] ping_url is set and its thread runs.")

_log = get_logger("atlas.watchdog")


class DeadManSwitch:
    """Sends `GET url` every `interval` seconds while `is_well` says so; it says why when it begins to fail or to withhold.

    `is_well` returns why not, empty if all is well. It runs on the thread: it must not wait, and what it raises counts as not
    well. The URL never reaches a log: whoever knows it can keep the alarm silent.
    """

    def __init__(self, url: Secret, interval: float, is_well: Callable[[], str]) -> None:
        self._url = url
        self._interval = interval
        self._is_well = is_well
        self._stop = threading.Event()  # lock-ok: its own thread waits for it; the loop only sets it
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="dead-man", daemon=True)

    def start(self) -> None:
        """Begin; the first ping is sent an interval later."""
        ARMED.set(1)
        self._thread.start()

    def stop(self) -> None:
        """Send no more. Does not wait for a ping that is on its way."""
        self._stop.set()
        ARMED.set(0)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                why = self._is_well()
            except Exception as error:  # noqa: BLE001  it reads what the loop may be changing; in doubt, silence
                why = f"it could not be told: {type(error).__name__}"
            outcome = "withheld"
            if not why:
                why = self._ping()
                outcome = "failed" if why else "sent"
            PINGS.labels(outcome).inc()
            self._tell(why, outcome)

    def _ping(self) -> str:
        try:
            # The settings let http and https through, and nothing else.
            with urllib.request.urlopen(self._url.reveal(), timeout=PING_SECONDS) as answer:  # noqa: S310
                answer.read(1024)
        except urllib.error.HTTPError as error:
            return f"it answered {error.code}"
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}"  # its text may hold the address
        except Exception as error:  # noqa: BLE001  whatever a foreign server sends, the next round pings again
            return f"{type(error).__name__}"
        return ""

    def _tell(self, why: str, outcome: str) -> None:
        if bool(why) == bool(self._told):
            return
        self._told = why
        if not why:
            _log.info("the dead man's switch is pinged again")
        elif outcome == "failed":
            _log.warning("the dead man's switch cannot be pinged; see [watchdog] ping_url", why=why)
        else:
            _log.warning("the dead man's switch is pinged no more, until all is well", why=why)
