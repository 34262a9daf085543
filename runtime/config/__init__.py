"""Configuration: one TOML file, environment overrides, and every error at once with its file and line.

Promises: a `Config` that exists is checked as a whole; secrets are `Secret` and never printed.
Entry points: `load`, `Config`, `settings` (declares the shape of a table), `Secret`.
The package is light to import: what needs actors is loaded when it is first asked for.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
