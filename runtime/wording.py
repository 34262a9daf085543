"""Figures for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`250 ms`, `2.50 s`, `12 s`, `3 min 20 s`, `5 h 10 min`, `12 d 3 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86400:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86400, "d", 3600, "h")


def _two(value: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = value % large // small
    return f"{value // large} {large_name}" + (f" {rest} {small_name}" if rest else "")
