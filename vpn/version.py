"""The version of this program."""

from __future__ import annotations


def version() -> str:
    """The installed version, "0" if it runs from a copied directory that was never installed."""
    # asked once, and not by the process that becomes Xray: finding it takes a tenth of a second
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("atlas")
    except PackageNotFoundError:
        return "0"
