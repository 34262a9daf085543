"""The watchdog: heartbeats, what their age means, and what follows when the loop stands.

Promises: one stale worker is repaired, a process whose beats are all stale ends with status 70, and neither needs the
loop.
Entry points: `watchdog.Watchdog`, `verdict.judge` (pure), `systemd.Systemd`. Made by `runtime.system`; nothing else
imports it but operations.
"""
