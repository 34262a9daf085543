"""Which configuration file is meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import runtime
from runtime.errors import ConfigError

VARIABLE: Final = "ATLAS_CONFIG"
FILE: Final = "supervisor.toml"


def find_config(given: Path | None, env: Mapping[str, str], directory: Path | None = None) -> Path:
    """The file to load: `given`, else $ATLAS_CONFIG, else ./supervisor.toml, else the copy shipped beside the packages.

    A file that was asked for is returned even if it does not exist (loading it says so). Raises ConfigError when none was
    asked for and none is found.
    """
    if given is not None:
        return given
    if env.get(VARIABLE):
        return Path(env[VARIABLE])
    here = (directory or Path.cwd()) / FILE
    shipped = Path(runtime.__file__).resolve().parent.parent / FILE
    for candidate in (here, shipped):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"there is no configuration: neither {here} nor {shipped} exists; pass --config FILE or set {VARIABLE}"
    )
