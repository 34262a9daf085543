"""Small wrongs in the source of one module, one at a time: what a slip of the hand would leave.

Comparisons and conditions turned round, `+` for `-`, numbers off by one, statements gone; and in SQL: the order turned round,
a condition or a sign gone, `>` for `>=`. A mutant is named by its function and what it does, so that the name survives
changes elsewhere in the file.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
}
CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
SQL: Final = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|FROM)\b")
IN_SQL: Final = (
    (re.compile(r" DESC\b"), " ASC"),
    (re.compile(r"(?<=ORDER BY )([\w.]+)(?![\w.]| DESC|\()"), r"\1 DESC"),
    (re.compile(r"\bIS NOT NULL\b"), "IS NULL"),
    (re.compile(r"\bIS NULL\b"), "IS NOT NULL"),
    (re.compile(r"\bNOT EXISTS\b"), "EXISTS"),
    (re.compile(r"(?<=[\w)]) <= "), " < "),
    (re.compile(r"(?<=[\w)]) < "), " <= "),
    (re.compile(r"(?<=[\w)]) >= "), " > "),
    (re.compile(r"(?<=[\w)]) > "), " >= "),
    (re.compile(r"(?<=[\w)]) \+ "), " - "),
    (re.compile(r"(?<=[\w)]) - "), " + "),
    (re.compile(r"(?<=SELECT )-(?=\w)"), ""),
    (re.compile(r"\bgreatest\("), "least("),
    (re.compile(r"\bleast\("), "greatest("),
    (re.compile(r"\bmax\("), "min("),
    (re.compile(r"\bmin\("), "max("),
    (re.compile(r"(?<!ON )\btrue\b"), "false"),
    (re.compile(r"\bfalse\b"), "true"),
    (
        re.compile(r"(?<=\bAND )[^()\n]+?(?=\s+(?:AND|OR|ORDER|GROUP|FOR|LIMIT|RETURNING)\b|\n|\)|$)"),
        "true",
    ),
)
"""What is done to SQL, at each place where it fits. Locks stay: what they keep apart has tests with races."""
LONGEST: Final = 110


@attrs.frozen(eq=False)
class Mutant:
    """One wrong, not done yet."""

    module: str
    function: str
    """Its qualified name; `-` for what is outside of functions."""
    what: str
    number: int
    """Of those in one function that read the same, which."""
    tree: ast.Module
    do: Callable[[], None]
    """Do it to that tree, for good."""

    @property
    def name(self) -> str:
        """What it is called in lists."""
        count = f" #{self.number}" if self.number > 1 else ""
        return f"{self.module}:{self.function}: {self.what}{count}"


@attrs.define
class _Finder:
    module: str
    found: list[tuple[str, str, Callable[[], None]]] = attrs.field(factory=list)
    path: tuple[str, ...] = ()

    def add(self, what: str, do: Callable[[], None]) -> None:
        self.found.append((".".join(self.path) or "-", " ".join(what.split())[:LONGEST], do))

    def visit(self, node: ast.AST) -> None:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                self.path = (*self.path, node.name)
                self._statements(node.body, in_class=isinstance(node, ast.ClassDef))
                self.path = self.path[:-1]
            case ast.Module():
                self._statements(node.body, in_class=False)
            case ast.Assert() | ast.Import() | ast.ImportFrom():
                pass
            case ast.AnnAssign():
                if node.value is not None:
                    self.visit(node.value)
            case ast.If() | ast.While() | ast.IfExp() | ast.comprehension():
                self._condition(node)
                self._children(node)
            case ast.Raise():
                pass
            case _:
                self._expression(node)
                self._children(node)

    def _children(self, node: ast.AST) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._statements(value, in_class=False)
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self.visit(child)

    def _statements(self, body: list[ast.stmt], *, in_class: bool) -> None:
        for index, statement in enumerate(body):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            if in_class and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                continue  # fields: their defaults are made into other code
            removable = isinstance(statement, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue | ast.Break)
            if removable and self.path:
                self.add(f"removed: {ast.unparse(statement)}", _setter(body, index, ast.Pass()))
            self.visit(statement)

    def _condition(self, node: ast.If | ast.While | ast.IfExp | ast.comprehension) -> None:
        if isinstance(node, ast.comprehension):
            for index, test in enumerate(node.ifs):
                if not isinstance(test, ast.Compare):
                    self.add(f"not: if {ast.unparse(test)}", _setter(node.ifs, index, _negated(test)))
        elif not isinstance(node.test, ast.Compare):
            text, test = ast.unparse(node.test), _negated(node.test)
            self.add(f"not: if {text}", lambda: setattr(node, "test", test))

    def _expression(self, node: ast.AST) -> None:
        match node:
            case ast.Compare():
                for index, operator in enumerate(node.ops):
                    for other in COMPARISONS.get(type(operator), ()):
                        self._change(node, _setter(node.ops, index, other()), _setter(node.ops, index, operator))
            case ast.BinOp() if type(node.op) in OPERATORS and not _is_text(node):
                self._attribute(node, "op", OPERATORS[type(node.op)]())
            case ast.BoolOp():
                self._attribute(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
            case ast.UnaryOp(op=ast.USub()):
                self._attribute(node, "op", ast.UAdd())
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                self._attribute(node, "func", ast.Name(CALLS[name], ast.Load()))
            case ast.Constant(value=bool(value)):
                self._attribute(node, "value", not value)
            case ast.Constant(value=int(value)):
                self._attribute(node, "value", value + 1)
            case ast.Constant(value=str(value)) if SQL.search(value):
                self._sql(node, value)

    def _attribute(self, node: ast.AST, name: str, value: object) -> None:
        before = getattr(node, name)
        self._change(node, lambda: setattr(node, name, value), lambda: setattr(node, name, before))

    def _change(self, node: ast.AST, do: Callable[[], None], undo: Callable[[], None]) -> None:
        before = ast.unparse(node)
        do()
        after = ast.unparse(node)
        undo()
        self.add(f"{before[: LONGEST // 2]} -> {after[: LONGEST // 2]}", do)

    def _sql(self, node: ast.Constant, text: str) -> None:
        for pattern, by in IN_SQL:
            for place in pattern.finditer(text):
                begin, end = place.span()
                new = place.expand(by)
                around = text[max(0, begin - 30) : begin].rpartition("\n")[2]
                after = text[end : end + 25].partition("\n")[0]
                changed = text[:begin] + new + text[end:]
                self.add(
                    f"SQL: {around}[{place.group()} -> {new}]{after}",
                    lambda changed=changed: setattr(node, "value", changed),  # type: ignore[misc]
                )


def _setter(
    items: list[object] | list[ast.stmt] | list[ast.cmpop] | list[ast.expr], index: int, new: object
) -> Callable[[], None]:
    return lambda: items.__setitem__(index, new)  # type: ignore[call-overload]


def _negated(test: ast.expr) -> ast.expr:
    return (
        test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else ast.UnaryOp(ast.Not(), test)
    )


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.Constant | ast.JoinedStr) and not isinstance(getattr(side, "value", ""), int)
        for side in (node.left, node.right)
    )


def mutants(module: str, tree: ast.Module) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its source. Each is done to this very tree."""
    finder = _Finder(module)
    finder.visit(tree)
    seen: Counter[tuple[str, str]] = Counter()
    for function, what, do in finder.found:
        seen[function, what] += 1
        yield Mutant(module, function, what, seen[function, what], tree, do)


def source_of(module: str, root: Path) -> Path:
    """The file of a module."""
    return root / f"{module.replace('.', '/')}.py"
