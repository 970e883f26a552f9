"""What expressions over slaves are made of, and how a slave is tested; `expressions` has the rules. PURE."""

import re
from collections.abc import Callable, Iterator, Mapping
from operator import ge, gt, le, lt
from typing import Any, Final, NamedTuple

Attribute = str | float | tuple[str, ...]

_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_RUNS: Final = re.compile(r"([0-9]+)")
_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
#: Tests that hold where no value passes the other one.
_NONE_OF: Final = {"!=": "==", "!~": "~", "not in": "in", "lacks": "holds"}


class Value(NamedTuple):
    """A text or (`bare`) a number, as it was written; `number` is what it reads as."""

    text: str
    bare: bool
    folded: str
    number: float | None
    pattern: re.Pattern[str] | None = None

    def __str__(self) -> str:
        if self.bare:
            return self.text
        quote = "'" if '"' in self.text else '"'
        return f"{quote}{self.text}{quote}"


class Comparison(NamedTuple):
    """One test; `op` is as it is written, "has", or "holds" and "lacks" for a value that comes first."""

    name: str
    op: str
    values: tuple[Value, ...] = ()

    def __str__(self) -> str:
        if self.op == "has":
            return f"has({self.name})"
        if self.op in ("holds", "lacks"):
            return f"{self.values[0]} {'in' if self.op == 'holds' else 'not in'} {self.name}"
        if self.op in ("in", "not in"):
            return f"{self.name} {self.op} ({', '.join(map(str, self.values))})"
        return f"{self.name} {self.op} {self.values[0]}"

    def matches(self, attributes: Mapping[str, Attribute]) -> bool:
        got = attributes.get(self.name)
        if got is None:
            return False
        members = got if isinstance(got, tuple) else (got,)
        if self.op == "has":
            return any(member != "" for member in members)
        op = _NONE_OF.get(self.op, self.op)
        found = any(_passes(member, op, value) for member in members for value in self.values)
        return found is (op == self.op)


class Not(NamedTuple):
    part: "Node"

    def __str__(self) -> str:
        return f"not {self.part}" if isinstance(self.part, (Comparison, Not)) else f"not ({self.part})"

    def matches(self, attributes: Mapping[str, Attribute]) -> bool:
        return not self.part.matches(attributes)


class All(NamedTuple):
    parts: "tuple[Node, ...]"

    def __str__(self) -> str:
        return " and ".join(
            f"({part})" if isinstance(part, (All, AnyOf)) else str(part) for part in self.parts
        )

    def matches(self, attributes: Mapping[str, Attribute]) -> bool:
        return all(part.matches(attributes) for part in self.parts)


class AnyOf(NamedTuple):
    parts: "tuple[Node, ...]"

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)

    def matches(self, attributes: Mapping[str, Attribute]) -> bool:
        return any(part.matches(attributes) for part in self.parts)


Node = Comparison | Not | All | AnyOf


def names_of(node: Node) -> Iterator[str]:
    """The attributes that it asks for."""
    if isinstance(node, Comparison):
        yield node.name
    elif isinstance(node, Not):
        yield from names_of(node.part)
    else:
        for part in node.parts:
            yield from names_of(part)


def _passes(got: str | float, op: str, value: Value) -> bool:
    if op == "~":
        return value.pattern is not None and value.pattern.match(_text(got)) is not None
    if isinstance(got, str) and not value.bare:
        if op in _ORDER:
            return _ORDER[op](_natural(got.casefold()), _natural(value.folded))
        return got.casefold() == value.folded
    number = number_of(got) if isinstance(got, str) else got
    if number is None or value.number is None:
        return False
    return _ORDER[op](number, value.number) if op in _ORDER else number == value.number


def _text(got: str | float) -> str:
    return got.casefold() if isinstance(got, str) else f"{got:.15g}"


def number_of(text: str) -> float | None:
    """What a text reads as, if it is a number."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A text's runs, so that runs of digits compare as numbers, however long."""
    runs = []
    for run in _RUNS.split(text):
        digits = run.lstrip("0")
        runs.append((0, len(digits), digits) if run[:1].isdecimal() and run.isascii() else (1, 0, run))
    return runs
