"""What customers bring from another system: balances, access with the key that they have, used trials.

Promise: everything is a fact in a row of its own, booked once by its key against the system account `opening` and in the audit
trail, and the auditor derives from it like from any other. Nobody is told. Entry points: `openings.open_balance`,
`openings.open_access` and `openings.note_used_trial`; for imports and tests.
"""
