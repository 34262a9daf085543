"""Operators: who somebody is, and what they may do; decided here and nowhere else.

Promises: whoever is not recognised may do nothing; a role includes those below it; a command that no list knows is the
owner's. Entry points: `Operators` (of a `Config`), `Identity`, `demand`, `least_role`, `front_end`.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
