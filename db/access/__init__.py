"""What a customer is entitled to: ends of subscriptions, the keys that are wanted because of them, and the reminders.

Promise: an end moves in `entitlements` alone, each time with an append-only event; `wanted_keys` says in the same
transaction what the nodes are to have. No money and no node is known here. For `db.billing`, `db.keys` and the actors.
"""
