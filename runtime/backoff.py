"""How long a child waits before its next restart. Pure: no clock, no randomness of its own."""

from __future__ import annotations

import attrs


@attrs.frozen
class Backoff:
    """The delays between the restarts of one child. All times in seconds.

    The first restart after a quiet time is immediate; the second waits `initial`, each further one `factor` times
    longer, never more than `maximum`; `jitter` shortens or lengthens each delay by up to that share, so that
    children that fell together do not rise together. A child that served for `reset_after` begins again at the
    immediate restart.

    Raises ValueError at construction if a value makes no sense.
    """

    initial: float = attrs.field(default=0.5, validator=attrs.validators.ge(0.0))
    """Delay before the second restart in a row."""
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1.0))
    """Growth from one delay to the next."""
    maximum: float = attrs.field(default=30.0, validator=attrs.validators.ge(0.0))
    """Cap of the delay before jitter."""
    jitter: float = attrs.field(default=0.2, validator=attrs.validators.ge(0.0))
    """Share of the delay that chance may add or take, 0 to 1."""
    reset_after: float = attrs.field(default=60.0, validator=attrs.validators.ge(0.0))
    """A child that served this long is counted as quiet: its next restart is immediate."""

    def __attrs_post_init__(self) -> None:
        if self.jitter > 1.0:
            raise ValueError(f"backoff jitter is a share between 0 and 1, got {self.jitter!r}")


NO_BACKOFF = Backoff(initial=0.0, maximum=0.0, jitter=0.0)
"""Every restart is immediate."""


def nominal_delay(backoff: Backoff, restart: int) -> float:
    """Seconds before the `restart`-th restart in a row (1 = the first) without jitter."""
    if restart < 1:
        raise ValueError(f"restarts are counted from 1, got {restart}")
    if restart == 1 or backoff.initial == 0.0:
        return 0.0
    try:
        grown = backoff.initial * backoff.factor ** (restart - 2)
    except OverflowError:
        return backoff.maximum
    return min(grown, backoff.maximum)


def delay(backoff: Backoff, restart: int, chance: float) -> float:
    """Seconds before the `restart`-th restart in a row; `chance` in [0, 1) picks the place inside the jitter."""
    nominal = nominal_delay(backoff, restart)
    return nominal * (1.0 + backoff.jitter * (2.0 * chance - 1.0))


def longest_delay(backoff: Backoff, restart: int) -> float:
    """The most that `delay` can return for this restart."""
    return nominal_delay(backoff, restart) * (1.0 + backoff.jitter)
