"""How the backend calls a node's agent over HTTP, and the JSON that both sides speak.

Promise: a call takes a bounded time, is repeated only where that is harmless, and fails with a `vpn.errors.NodeError` that says
whether the change may have happened. Entry points: `client.AgentClient` (a `vpn.protocol.VpnNode`) and `settings.NodeSettings`.
For the actors of nodes and for `vpn.commands`; the agent imports `wire` alone.
"""
