"""Exceptions out of nurseries."""

from __future__ import annotations


def sole(error: BaseException) -> BaseException:
    """The one exception inside a group, however deep; the group itself if there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
