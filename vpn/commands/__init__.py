"""The operator's commands about nodes and tunnels: `atlas node …` and `atlas tunnel`.

Promise: each needs one node or one link, never the database or the backend; its help text names its exit codes. Entry
points: `node.node` and `tunnel.tunnel`, found by the command line through the entry points in pyproject.toml. The top of
the room: nothing imports it.
"""
