"""The table `[pool]` of the configuration file."""

from __future__ import annotations

from typing import Literal

import attrs

from runtime.config import settings


@settings("pool")
@attrs.frozen
class PoolSettings:
    """How many connections a pool keeps and how it treats those who wait. All times in seconds."""

    size: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    """Connections of a pool. Twice the database's cores plus one is a good start; the number of requests is not."""

    reserved: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    """Connections that only the system lane (health checks, control) may take; never all of them."""

    bridge: Literal["auto", "inline", "plain"] = "auto"
    """How asyncpg is driven. `auto` takes the fast bridge if its self-test passes, else the plain one, with a warning."""

    max_waiting: int = attrs.field(default=500, validator=attrs.validators.ge(1))
    """Requests that may wait at once; the next is refused. The system lane is not counted."""

    slow_target: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    """CoDel target, in seconds. If every wait in `slow_interval` exceeds it, requests older than twice the target are shed."""

    slow_interval: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """How long waits must stay above `slow_target` before requests are shed."""

    wait_warning: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """A request that waits longer is reported as a WARNING while it still waits."""

    wait_critical: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """A request that waits longer is reported as CRITICAL while it still waits."""

    idle_held_warning: float = attrs.field(default=0.5, validator=attrs.validators.gt(0))
    """An open lease that did nothing with its connection for longer is reported when it is given back."""

    revoke_grace: float = attrs.field(default=0.25, validator=attrs.validators.gt(0))
    """After the hold deadline a holder is cancelled; one that still holds the connection so much later loses it by force."""

    quarantine: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    """How long a connection in doubt may take to prove that it is clean before it is cut and replaced."""

    max_lifetime: float = attrs.field(default=1800.0, validator=attrs.validators.gt(0))
    """A connection is replaced after this time, up to a tenth earlier, so that they do not all go at once."""

    idle_check: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """How often idle connections are looked at."""

    monitor: bool = True
    """Histograms and logs of waits. Off removes them, never a deadline nor what the watchdog reads."""
