"""A running system as its operators see it: the tree, the verbs, reload, events and figures.

Promises: each verb acts at once or is refused in words, and none needs the actor's help.
Entry points: `running.RunningSystem` (what may be known of a system), `operations.Operations`, `reload.Reloader`.
Imported by control and system.
"""
