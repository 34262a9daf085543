"""VPN nodes: the agent that runs on one, the client that talks to it, links and tunnels."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("atlas")
except PackageNotFoundError:  # run from a copied directory that was never installed
    __version__ = "0"
