"""How work is handed over in rows: claims on database time, epochs of singletons, the outbox, the audit trail, nonces.

Promise: whatever is claimed is fenced by its epoch, so that a late holder changes nothing; a message or an audit row
commits with the fact that it tells. Entry points: `claims` (the SQL of every claimed table), `leader_leases.acquire_epoch`,
`outbox.add_message`, `audit.record_audit`, `nonces.use_nonce`. Every business package may import it.
"""
