"""The assembly: one System is one `atlas run`.

Promises: the process leaves in order and with a documented exit code, or at the third signal at once.
Entry points: `run_system`, `System`, `running_system`. Above everything but the command line.
"""
