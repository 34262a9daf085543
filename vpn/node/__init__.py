"""What the backend says to a node: calls to its agent over HTTP, and the JSON of both sides.

Promise: a call takes a bounded time, is repeated only where that is harmless, and fails with a `vpn.errors.NodeError`
that says
whether the change may have happened. Entry points: `client.AgentClient` (a `vpn.protocol.VpnNode`),
`settings.NodeSettings`; the
agent imports `wire` alone. For the actors of nodes and `atlas node`.
"""
