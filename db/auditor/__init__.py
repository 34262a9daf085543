"""The auditor: derives from the facts what must be stored, and names what is not.

Promise: it shares nothing with the operations. It reads tables alone, derives each customer's journals, purses, rewards and
intervals from captured charges, orders, requests, rules with their validity and the audit trail by an arithmetic of its own,
and compares whose account, which amount, which kind, which interval and which tariff. It changes no fact. Entry points:
`audit.audit` and `explain.explain`; for `atlas verify` and tests. Of `db` it imports `tx`, `money` and `errors` alone.
"""
