"""Checks and chores that belong to no other actor: dependencies, stale rows, money views.

Promises: trouble that is found is a condition, told when it begins, while it lasts and when it ends, and never a
crash. Entry points: in `supervisor.toml` `healthcheck.Healthcheck`, `housekeeping.Housekeeping`. No other package
imports this one.
"""
