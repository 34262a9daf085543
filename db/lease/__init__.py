"""Who gets the next connection, and the record of who has it: queueing and bookkeeping, no tasks of its own.

Promise: first come, first served within a lane; overload is shed early (CoDel); a lease ends exactly once. Entry
points: `queue.LeaseQueue`, `lease.Lease`, `lease.OpenLease`. For the pool's actor, which decides when.
"""
