"""A supervised actor runtime on trio. Its public names, flat; other rooms import nothing deeper.

Tests of actors use `runtime.testing.system` as well.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
