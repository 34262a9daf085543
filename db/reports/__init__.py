"""What the business comes to, from the ledger and the entitlement events alone; only reads.

Promises: nothing is estimated and nothing is read from a counter, so a report of days that are over never changes unless money
of theirs is moved by a journal of its own. Entry points: `report.read_report`, and `text.as_csv` for spreadsheets. `atlas report`
and the desk's page of money show the same. Imported by `actors.commands` and `actors.desk`.
"""
