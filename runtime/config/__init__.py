"""Configuration: one TOML file, environment overrides, and every error at once with its file and line.

Promises: a `Config` that exists is checked as a whole; secrets are `Secret` and never printed.
Entry points: `load`, `Config`, `settings` (declares the shape of a table), `Secret`.
The package is light to import: what needs actors is loaded when it is first asked for.
"""

from runtime.config.config import Config
from runtime.config.errors import ConfigErrors
from runtime.config.loader import load, load_text
from runtime.config.secret import Secret
from runtime.config.section import settings

__all__ = [
    "Config",
    "ConfigErrors",
    "Secret",
    "load",
    "load_text",
    "settings",
]
