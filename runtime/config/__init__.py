"""Configuration: one TOML file, environment overrides, and every error at once with its file and line."""

from runtime.config.secret import Secret
from runtime.config.settings import settings

__all__ = ["Secret", "settings"]
