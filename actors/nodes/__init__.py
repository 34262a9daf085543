"""VPN nodes, as the service sees them: one actor a node, and the ones that look at what nodes do.

Promises: no lease is held while a node is asked; nothing that a node says ends the service; every request but
`KickKey` may be repeated. Entry points: `messages` (what `node.<name>` is asked), `links` (the links that work); in
`supervisor.toml` `node.NodeActor`, `embedded_node.EmbeddedNode`, `canary.Canary`, `usage.UsageCollector`. Packages
above import `messages` and `links` alone.
"""
