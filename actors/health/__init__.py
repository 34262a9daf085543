"""What is looked at because nobody else has a reason to: dependencies, stale rows, money views.

Promises: trouble that is found is a condition, told when it begins, while it lasts and when it ends, and never a
crash. Entry points: in `supervisor.toml` `healthcheck.Healthcheck`, `housekeeping.Housekeeping`. No other package
imports this one.
"""
