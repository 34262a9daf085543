"""The freeze of the system that ATLAS replaces, replayed: `make incident`, told in `docs/explanation/incident.md`.

`old_service` repeats in two hundred lines what that system did; `ours` is ATLAS as it is. Both meet the same night: a hundred
thousand subscriptions, fifteen connections, every worker due in the same second, a VPN that takes five seconds to answer, a
list that fails, and at the end a lock that the code on the event loop takes twice. `night` says when what happens, and what is
seen of both from outside.
"""
