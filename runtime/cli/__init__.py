"""The command line `atlas`.

Promises: `--help` imports no command; every error is one line and an exit code of sysexits.
Entry points: `main` (the process), and for the rooms' commands: the options, the parameter types, `emit` and `table`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runtime.cli.main import cli, run_command_line
    from runtime.cli.options import (
        FilePath,
        Seconds,
        Text,
        Word,
        call_control,
        complete_actor,
        config_option,
        control_options,
        json_option,
        load_config,
    )
    from runtime.cli.output import emit, emit_line, table

__all__ = [
    "FilePath",
    "Seconds",
    "Text",
    "Word",
    "call_control",
    "cli",
    "complete_actor",
    "config_option",
    "control_options",
    "emit",
    "emit_line",
    "json_option",
    "load_config",
    "run_command_line",
    "table",
]

_HOME: Final = {
    "FilePath": "runtime.cli.options",
    "Seconds": "runtime.cli.options",
    "Text": "runtime.cli.options",
    "Word": "runtime.cli.options",
    "call_control": "runtime.cli.options",
    "cli": "runtime.cli.main",
    "complete_actor": "runtime.cli.options",
    "config_option": "runtime.cli.options",
    "control_options": "runtime.cli.options",
    "emit": "runtime.cli.output",
    "emit_line": "runtime.cli.output",
    "json_option": "runtime.cli.options",
    "load_config": "runtime.cli.options",
    "run_command_line": "runtime.cli.main",
    "table": "runtime.cli.output",
}


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
