"""How work is handed over in rows: claims on database time, epochs of singletons, the outbox, the audit trail, nonces.

Promise: whatever is claimed is fenced by its epoch, so that a late holder changes nothing; a message or an audit entry
commits
with the fact that it tells. Imports `db.tx`, `db.money` and `db.customers` alone; every business package may import it.
"""
