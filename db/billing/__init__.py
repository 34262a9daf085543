"""Money: what is bought, how it is paid, and what happens when it cannot be delivered.

Promise: every captured payment ends in exactly one of entitlement, balance credit or case
(`purchases.finalize_purchase`); every kopeck is a posting of a balanced journal (`ledger.post`); the views that
`invariants` reads are empty. Operations lock the customer's row first. Entry points are the functions of each file; for
`db.keys` (cases and compensation), actors and operators' commands.
"""
