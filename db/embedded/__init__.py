"""PostgreSQL for a machine that has none: found, initialised and described here, run by an actor as its own child."""

from db.embedded.cluster import Cluster, embedded_dsn, prepare
from db.embedded.layout import Layout, layout_of
from db.embedded.settings import ClusterError, EmbeddedSettings

__all__ = ["Cluster", "ClusterError", "EmbeddedSettings", "Layout", "embedded_dsn", "layout_of", "prepare"]
