"""A correlation id: what ties the log lines of one request, payment or operator command together.

It lives in a context variable, so tasks started inside inherit it, and it travels with messages: what is told, sent or
asked under it is handled under it. Timers, and wake-ups that may stand for several, carry none.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")
"""The id of what is being served, or an empty string."""

current_actor: ContextVar[str] = ContextVar("current_actor", default="")
"""The name of the actor that the calling task belongs to, or an empty string: log lines carry it."""


def new_correlation_id() -> str:
    """A fresh id: 12 hexadecimal characters, which redaction leaves alone."""
    return secrets.token_hex(6)


@contextmanager
def correlated(identifier: str | None = None) -> Iterator[str]:
    """Log lines, events and messages sent inside carry `identifier`, or a fresh one if it is None. Yields the one used."""
    identifier = identifier or new_correlation_id()
    token = correlation_id.set(identifier)
    try:
        yield identifier
    finally:
        correlation_id.reset(token)
