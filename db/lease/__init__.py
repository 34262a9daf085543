"""Who gets the next connection, and the record of who has it: pure queueing and bookkeeping, no tasks of its own.

Promise: FIFO within a lane, overload is shed early (CoDel), a lease ends exactly once. Entry points:
`queue.LeaseQueue`,
`lease.Lease`, `lease.OpenLease`. For the pool's actor, which decides when.
"""
