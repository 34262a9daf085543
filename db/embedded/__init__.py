"""PostgreSQL for a machine that has none: found, initialised and described here, run by an actor as its own child.

Promise: data is made once and never overwritten; who may connect is who may enter its socket directory. Entry points:
`prepare` (a `Cluster` that can be run), `embedded_dsn`, `layout_of`, `EmbeddedSettings`. For the actor that runs it.
"""

from db.embedded.cluster import Cluster, embedded_dsn, prepare
from db.embedded.layout import Layout, layout_of
from db.embedded.settings import ClusterError, EmbeddedSettings

__all__ = ["Cluster", "ClusterError", "EmbeddedSettings", "Layout", "embedded_dsn", "layout_of", "prepare"]
