"""Actors: messages in, one at a time, state that dies with its incarnation.

Promises: `Ref.tell` never waits, messages keep their order for each pair of sender and receiver, an ask is answered,
refused or timed out exactly once, and an address outlives its incarnations.
Entry points: `Actor`, `handler`, `Context`, `Ref`, `PeriodicWorker`, `Services` (all in `runtime`).
Nine of its modules are one concept and know each other's types: actor, address, ask, context, incarnation, mailbox,
message_loop, ref, services. It knows nothing of supervisors: anything that keeps the promises of `runtime.child.Child` can
run an address.
"""
