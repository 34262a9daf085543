"""The public names of a package, written once: in the stub beside it, and imported when they are first asked for.

`__init__.pyi` holds one line a name, `from .core.actor import Actor as Actor`: type checkers and editors read it as it is,
and the package resolves its names from it, so that `atlas --help` does not wait for the import of every actor.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path

_LINE = re.compile(r"^from \.([\w.]+) import (\w+) as (\w+)(?:  # deprecated: (.+))?$", re.MULTILINE)


def public_names(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package; `file` is the `__file__` of its `__init__`.

    Nothing is imported until a name is asked for. A line that ends with `  # deprecated: use X` still has its name, and a
    DeprecationWarning for who asks for it. Raises FileNotFoundError when the stub is missing.
    """
    stub = Path(file).with_suffix(".pyi").read_text(encoding="utf-8")
    lines = _LINE.findall(stub)
    home = {name: (f".{module}", inner) for module, inner, name, _ in lines}
    deprecated = {name: advice for _, _, name, advice in lines if advice}

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if name in deprecated:
            warnings.warn(f"{package}.{name} is deprecated: {deprecated[name]}", DeprecationWarning, stacklevel=2)
        module, inner = home[name]
        return getattr(importlib.import_module(module, package), inner)

    return get, lambda: sorted(home), sorted(home)
