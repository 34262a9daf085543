"""Supervisors: start children in order, restart what ends against the rules, stop everything in reverse (OTP's
`supervisor`).

Promises: at most one run of a child at a time, exactly one Exit for each run, and a stop that ends within its budget or
reports who did not end.
Entry points: `Supervisor`, `DynamicSupervisor`, `open_tree_nursery`, the errors, the events.
A crash is followed from `child_run` (the Exit) through `control_loop` and `outcome` (what follows) back to
`control_loop` (the restart).
"""
