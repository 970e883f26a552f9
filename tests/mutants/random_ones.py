"""Random mutants: one small change at one place of a core, as programmers make mistakes.

Rules of this file:
1. What is changed is text, found by the syntax tree: everything else of a file stays as it is.
2. The same seed, and the same tree, make the same mutants.
3. Left alone is what no test need notice: words for people, annotations, assertions, what only type checkers
   read, `__slots__`; and the EQUIVALENT ones, told by hand, that change nothing a test could see.
"""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CORES = {"master": "drqueue/master/core", "slave": "drqueue/slave/core"}
#: Words for people, and what tests alone use.
LEFT_ALONE = {
    "__init__.py",
    "wording.py",
    "reasons.py",
    "invariants.py",
    "invariants_depends.py",
    "places_invariants.py",
}
EQUIVALENT = Path(__file__).with_name("equivalent.txt")

_COMPARED = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
_SIGNS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip
_CALCULATED = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """In the file at `path`, from `start` to `end` (bytes), stands `new` instead of `old`."""

    path: str
    where: str
    line: int
    text: str
    start: int
    end: int
    old: str
    new: str

    @property
    def told(self) -> str:
        """One line that says what it is, whatever lines stand above it."""
        change = f"{' '.join(self.old.split())} -> {' '.join(self.new.split())}"
        return f"{self.path} {self.where}: {change}" + ("" if self.text in self.old else f" in {self.text}")

    def applied(self, root: Path) -> str:
        """The file with it."""
        source = (root / self.path).read_bytes()
        return (source[: self.start] + self.new.encode() + source[self.end :]).decode()


def equivalent() -> set[str]:
    """What is known to change nothing that a test could see; see `Mutant.told`."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    return {line.partition("  #")[0].rstrip() for line in lines if line and not line.startswith("#")}


def every(core: str, root: Path) -> list[Mutant]:
    """Every mutant of a core, in the order of its files and lines."""
    found: list[Mutant] = []
    for path in sorted((root / CORES[core]).glob("*.py")):
        if path.name not in LEFT_ALONE:
            found += _Finder(str(path.relative_to(root)), path.read_text()).found
    return found


def all_of(core: str, root: Path) -> list[Mutant]:
    """Those of them that change something."""
    known = equivalent()
    return [mutant for mutant in every(core, root) if mutant.told not in known]


def drawn(core: str, count: int, seed: int, root: Path) -> list[Mutant]:
    """So many of them."""
    everything = all_of(core, root)
    dice = random.Random(f"{core} {seed}")
    return dice.sample(everything, min(count, len(everything)))


class _Finder:
    """Everything in one file that may be changed."""

    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._source = source.encode()
        self._starts = [0]
        for line in self._source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self.found: list[Mutant] = []
        self._body(ast.parse(source).body, "")

    # -- places in the text -----------------------------------------------------------------------------

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _add(self, where: str, span: tuple[int, int], new: str) -> None:
        start, end = span
        line = self._source.count(b"\n", 0, start) + 1
        text = self._source[self._starts[line - 1] : self._starts[line]].decode().strip()
        old = self._source[start:end].decode()
        if old != new:
            self.found.append(Mutant(self._path, where, line, text, start, end, old, new))

    # -- statements -------------------------------------------------------------------------------------

    def _body(self, body: list[ast.stmt], where: str) -> None:
        for statement in body:
            self._statement(statement, where, alone=len(body) == 1)

    def _statement(self, node: ast.stmt, where: str, *, alone: bool) -> None:
        match node:  # type: ignore[exhaustive-match]
            case ast.FunctionDef() | ast.ClassDef():
                inner = f"{where}.{node.name}" if where else node.name
                if isinstance(node, ast.FunctionDef):
                    for default in (*node.args.defaults, *node.args.kw_defaults):
                        self._expressions(default, inner)
                self._body(node.body, inner)
                return
            case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Raise():
                return
            case ast.Expr(ast.Constant()):
                return
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return
            case ast.Assign(targets=[ast.Name(id="__slots__" | "__hash__")]):
                return
        if where and self._may_go(node):
            self._add(where, self._span(node), "pass")
        match node:  # type: ignore[exhaustive-match]
            case ast.If() | ast.While():
                self._negated(node.test, where)
                self._expressions(node.test, where)
            case ast.For():
                self._expressions(node.iter, where)
            case ast.Match():
                self._expressions(node.subject, where)
                for case in node.cases:
                    if case.guard is not None:
                        self._expressions(case.guard, where)
                    self._body(case.body, where)
            case ast.AugAssign(op=ast.Add() | ast.Sub()):
                self._augmented(node, where)
                self._expressions(node.value, where)
            case ast.Return(value=ast.expr() as value) | ast.Expr(value=value):
                self._expressions(value, where)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                self._expressions(node.value, where)
        for name in ("body", "orelse", "finalbody"):
            self._body(getattr(node, name, []), where)
        for handler in getattr(node, "handlers", []):
            self._body(handler.body, where)

    @staticmethod
    def _may_go(node: ast.stmt) -> bool:
        """Without it the rest still is a program that means something."""
        if isinstance(node, ast.Assign):
            return all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
        return isinstance(node, ast.Expr | ast.AugAssign | ast.Delete | ast.Continue | ast.Break)

    def _augmented(self, node: ast.AugAssign, where: str) -> None:
        start, end = self._span(node.target)[1], self._span(node.value)[0]
        sign = self._source[start:end].decode()
        other = sign.replace("+=", "-=") if "+=" in sign else sign.replace("-=", "+=")
        self._add(where, (start, end), other)

    # -- expressions ------------------------------------------------------------------------------------

    def _expressions(self, node: ast.AST | None, where: str) -> None:
        for one in self._within(node):
            match one:
                case ast.Compare(ops=[op], comparators=[right]):
                    self._between(one.left, right, _SIGNS[type(op)], _COMPARED[type(op)], where)
                case ast.BoolOp(op=op, values=[first, second, *_]):
                    signs = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
                    self._between(first, second, *signs, where)
                case ast.UnaryOp(op=ast.Not()):
                    self._add(where, self._span(one), f"({self._text(one.operand)})")
                case ast.IfExp():
                    self._negated(one.test, where)
                case ast.BinOp(op=op) if type(op) in _CALCULATED:
                    self._between(one.left, one.right, *_CALCULATED[type(op)], where)
                case ast.Constant(value=bool() as value):
                    self._add(where, self._span(one), str(not value))
                case ast.Constant(value=int() | float()):
                    self._add(where, self._span(one), f"({self._text(one)} + 1)")
                case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
                    self._add(where, self._span(one.func), _CALLED[name])

    def _negated(self, test: ast.expr, where: str) -> None:
        """The other branch, where no other change comes to just that."""
        flips = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
        match test:
            case ast.UnaryOp(op=ast.Not()):
                return
            case ast.Compare(ops=[op]) if isinstance(op, flips):
                return
        self._add(where, self._span(test), f"not ({self._text(test)})")

    def _within(self, node: ast.AST | None) -> Iterator[ast.AST]:
        """An expression and all in it, but for words."""
        if node is None or isinstance(node, ast.JoinedStr):
            return
        yield node
        for inner in ast.iter_child_nodes(node):
            yield from self._within(inner)

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str, where: str) -> None:
        """The sign that stands between two expressions."""
        start, end = self._span(left)[1], self._span(right)[0]
        between = self._source[start:end].decode()
        at = between.find(old)
        if at >= 0:
            start += len(between[:at].encode())
            self._add_sign(where, left, right, (start, start + len(old.encode())), new)

    def _add_sign(self, where: str, left: ast.expr, right: ast.expr, span: tuple[int, int], new: str) -> None:
        """Told with what it stands between, else nobody would know which one is meant."""
        whole = (self._span(left)[0], self._span(right)[1])
        text = self._source[whole[0] : span[0]] + new.encode() + self._source[span[1] : whole[1]]
        self._add(where, whole, text.decode())
