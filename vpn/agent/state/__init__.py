"""What is wanted of this node, on disk: keys and removals, the node's identity, its time and the backend's last contact.

Promise: a change counts once it is on disk; damage is refused by file, line and byte. Entry points: `store.open_store`,
`identity.load_identity`, `clock.NodeClock` and `clock.ClockFile`. Knows nothing of Xray. For the rest of the agent.
"""
