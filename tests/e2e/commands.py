"""Everything that a command of `atlas` imports, for the process that commands are forked from.

Not `runtime.cli.main` itself: that each command runs anew.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path

from runtime.config import load

for point in importlib.metadata.entry_points(group="atlas.commands"):
    point.load()
for module in ("check", "completion", "operate", "run", "show"):
    importlib.import_module(f"runtime.cli.{module}")
for module in ("control.client", "control.socket", "redaction", "system.system", "wording"):
    importlib.import_module(f"runtime.{module}")
load(Path(__file__).parents[2] / "supervisor.toml", {})  # and with it all actors
