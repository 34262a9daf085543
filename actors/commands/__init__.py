"""The operator commands of `atlas` that need the database or a pool: one function a command, named in `pyproject.toml`.

Promises: exit codes and `--json` are interfaces; repeating a command changes nothing that it has done. Nothing
imports this package.
"""
