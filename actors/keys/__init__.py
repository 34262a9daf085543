"""Customers' keys: what the database wants of them, made true on every node.

Promises: a key is active only after a node has read it back; one key's or node's trouble delays no other; an error is
never an empty list. Entry points: in `supervisor.toml` `activation.Activation`, `fast_expiry.FastExpiry`,
`reconcile.Reconcile`. No other package imports this one.
"""
