"""What is wanted of this node, durable: keys and removals, the node's identity, and when the backend was last heard.

Promise: a change counts once it is on disk; damage is refused by file, line and byte. Entry points: `store.open_store`,
`identity.load_identity`, `expiry`. Knows nothing of Xray. For the rest of the agent.
"""
