"""A supervised actor runtime on trio. The public names, flat; the modules behind them are of concern to nobody else.

Tests of actors use `runtime.testing.system` as well.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
