"""The first line of a command's help, read from its source without importing it.

`atlas --help` lists the commands of all rooms; importing them all would load the database driver, the HTTP stack and more,
and one room that does not import would take the list with it.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path


def short_help(target: str) -> str | None:
    """The first sentence of the docstring (or of `help=`) of `module:name`; None when the source does not tell.

    Imports the packages above the module, which are light, and not the module itself.
    """
    module, _, name = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return None
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (ImportError, OSError, SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            text = ast.get_docstring(node) or next((_help(call) for call in node.decorator_list if _help(call)), None)
            return _first_sentence(text) if text else None
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                text = _help(node.value)
                return _first_sentence(text) if text else None
    return None


def _help(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("help", "short_help") and isinstance(keyword.value, ast.Constant):
                return str(keyword.value.value)
    return None


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split())
    return paragraph.split(". ", 1)[0].rstrip(".") + "."
