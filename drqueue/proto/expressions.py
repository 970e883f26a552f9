"""Expressions over what slaves are: the language of `Needs.where`. PURE.

    os == "linux" and cpu ~ "*EPYC*" and memory_mb >= 64000
    host in ("render-1", "render-2") or host ~ "gpu-[0-9]*"
    "ssd" in tags and not (has(rack) and rack < 7)

Rules of the language:
* A test is `ATTRIBUTE OP VALUE` with one of == != < <= > >= ~ !~ (a pattern with * ? [a-z]), or `ATTRIBUTE in
  (VALUE, ...)`, or `VALUE in ATTRIBUTE`, both also with `not in`, or `has(ATTRIBUTE)`. Tests are joined by
  `and`, `or`, `not` and parentheses; `and` binds closer than `or`. A value is a number, or text in quotes of
  either kind, in which nothing is escaped.
* Case matters nowhere: not in texts, patterns, names of attributes or words.
* A number is compared with what is, or reads as, a number; a text with what is a text, by < and > with runs
  of digits as numbers, so that "5.4" is below "5.15".
* Of an attribute with several values a test asks whether any passes; with `not` or ! in it, whether all do.
* A test of an attribute that a slave has not is false, `not` in it or not; but `not (...)` around it is true.
* An expression has at most MAX_LENGTH characters, MAX_TESTS tests and MAX_DEPTH nested parentheses and nots.
  Patterns are matched in time proportional to the text times the pattern.
"""

import re
from collections.abc import Iterator, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn, final

from drqueue.proto.expression_tree import (
    All,
    AnyOf,
    Attribute,
    Comparison,
    Node,
    Not,
    Value,
    names_of,
    number_of,
)
from drqueue.proto.model import MachineInfo, Offers

__all__ = ["ATTRIBUTES", "Attribute", "Expression", "ExpressionError", "attributes_of", "parse"]

MAX_LENGTH: Final = 2000
MAX_TESTS: Final = 100
MAX_DEPTH: Final = 20
#: Expressions that are kept as they were read; the one that was asked for longest ago is forgotten.
KEPT: Final = 512

#: What every slave has, though it may be empty: custom attributes are called otherwise.
ATTRIBUTES: Final = frozenset(
    {
        *("os", "os_release", "arch", "cpu", "cpu_mhz", "host", "name", "cores", "memory_mb", "gpus", "gpu"),
        *("gpu_memory_mb", "disk_mb", "tags", "pools"),
    }
)
#: Words of the language, which no attribute may be called.
WORDS: Final = frozenset({"and", "or", "not", "in", "has"})
#: What an attribute may be called.
ATTRIBUTE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+) | (?P<text>"[^"]*"|'[^']*')
    | (?P<number>[-+]?[0-9]{1,15}(?:\.[0-9]{1,15})?(?![0-9A-Za-z_.]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*) | (?P<wrong>&&|&|\|\||\||=~|=(?!=)|!(?![=~])|<>)
    | (?P<op>==|!=|<=|>=|<|>|!~|~) | (?P<mark>[(),])""",
    re.VERBOSE,
)
#: What people write who come from other languages.
_INSTEAD: Final = {
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "=~": "~",
    "=": "==",
    "<>": "!=",
}


class ExpressionError(ValueError):
    """An expression that cannot be read: its text is one sentence, `column` (from 1) where it went wrong."""

    def __init__(self, column: int, text: str) -> None:
        # A text in quotes may hold line ends; a sentence that repeats it is still one line.
        shown = "".join([letter if letter.isprintable() else " " for letter in text])
        super().__init__(f"column {column}: {shown}")
        self.column = column


@final
class Expression:
    """An expression that was read; `text` reads as an equal one, `names` are the attributes in it."""

    __slots__ = ("_root", "names", "text")

    text: Final[str]
    names: Final[frozenset[str]]

    def __init__(self, root: Node) -> None:
        self._root = root
        self.text = str(root)
        self.names = frozenset(names_of(root))

    def matches(self, attributes: Mapping[str, Attribute]) -> bool:
        """Whether a slave with these `attributes_of` it passes."""
        return self._root.matches(attributes)

    def __eq__(self, other: object) -> bool:
        return self._root == other._root if isinstance(other, Expression) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"parse({self.text!r})"


@lru_cache(maxsize=KEPT)
def parse(text: str) -> Expression:
    """Read an expression; raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            MAX_LENGTH + 1, f"the expression has {len(text)} characters, {MAX_LENGTH} are allowed"
        )
    return Expression(_Parser(text).whole())


def attributes_of(
    machine: MachineInfo,
    offers: Offers,
    *,
    name: str,
    pools: tuple[str, ...],
    cores: float,
    memory_mb: int,
) -> dict[str, Attribute]:
    """What expressions see of a slave that offers so many cores and so much memory, but for unknown texts."""
    gpus = [gpu for gpu in machine.gpus if gpu.index in offers.gpus]
    texts = {key.casefold(): value for key, value in offers.attributes.items()} | {
        "os": machine.os,
        "os_release": machine.os_release,
        "arch": machine.arch,
        "cpu": machine.cpu_model,
        "host": machine.hostname,
        "name": name,
    }
    attributes: dict[str, Attribute] = {key: value for key, value in texts.items() if value}
    if machine.cpu_mhz:
        attributes["cpu_mhz"] = machine.cpu_mhz
    return attributes | {
        "cores": cores,
        "memory_mb": memory_mb,
        "gpus": len(offers.gpus),
        "gpu": tuple([gpu.name for gpu in gpus]),
        "gpu_memory_mb": max([gpu.memory_mb for gpu in gpus], default=0),
        "disk_mb": offers.disk_mb,
        "tags": offers.tags,
        "pools": pools,
    }


class _Token(NamedTuple):
    kind: str
    text: str
    column: int

    @property
    def word(self) -> str:
        """A word of the language, else ""."""
        word = self.text.casefold()
        return word if self.kind == "name" and word in WORDS else ""


class _Parser:
    """Reads one text, a token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._at = 0
        self._tests = 0

    def whole(self) -> Node:
        """The expression that is the whole text."""
        if self._next.kind == "end":
            self._expected("an expression")
        root = self._either(0)
        if self._next.kind != "end":
            self._expected("'and', 'or' or the end")
        return root

    # -- tokens

    def _split(self) -> list[_Token]:
        tokens, at, text = [], 0, self._text
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise ExpressionError(at + 1, self._wrong(text[at : at + 200]))
            if match.lastgroup == "wrong":
                raise ExpressionError(at + 1, f"{_INSTEAD[match[0]]!r} is expected in place of {match[0]!r}")
            if match.lastgroup != "blank":
                tokens.append(_Token(match.lastgroup, match[0], at + 1))
            at = match.end()
        return [*tokens, _Token("end", "", len(text) + 1)]

    @staticmethod
    def _wrong(rest: str) -> str:
        """What is wrong where no token begins."""
        if rest[0] in "\"'":
            return f"the text that begins with {rest[0]} has no end"
        word = re.split(r"[\s\"'(),]", rest, maxsplit=1)[0][:40] or rest[0]
        return f"{word!r} is no number" if word.lstrip("+-")[:1].isdecimal() else f"{word!r} was not expected"

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _took(self, wanted: str) -> bool:
        """Whether that mark or word stood there; then it is taken."""
        if wanted not in (self._next.text, self._next.word):
            return False
        self._at += 1
        return True

    def _need(self, wanted: str, after: str) -> None:
        if not self._took(wanted):
            self._expected(f"{wanted!r} after {after}")

    def _expected(self, what: str) -> NoReturn:
        token = self._next
        found = "the end" if token.kind == "end" else token.text[:40]
        hint = f': a text stands in quotes, as "{found}"' if token.kind == "name" and "quotes" in what else ""
        raise ExpressionError(token.column, f"{what} is expected, not {found}{hint}")

    def _deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise ExpressionError(self._next.column, f"more than {MAX_DEPTH} parentheses and nots are nested")
        return depth + 1

    # -- grammar

    def _either(self, depth: int) -> Node:
        parts = [self._all(depth)]
        while self._took("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all(self, depth: int) -> Node:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self, depth: int) -> Node:
        if self._took("not"):
            return Not(self._one(self._deeper(depth)))
        if self._took("("):
            inner = self._either(self._deeper(depth))
            self._need(")", "what the parenthesis holds")
            return inner
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise ExpressionError(self._next.column, f"more than {MAX_TESTS} tests")
        return self._test()

    def _test(self) -> Comparison:
        if self._took("has"):
            self._need("(", "'has'")
            name = self._name()
            self._need(")", "has(" + name)
            return Comparison(name, "has")
        if self._next.kind in ("text", "number"):
            value = self._value("a value")
            negative = self._took("not")
            if self._next.kind == "op":
                raise ExpressionError(
                    self._next.column, "the attribute stands on the left, the value on the right"
                )
            if not self._took("in"):
                self._expected(f"'in' and an attribute after {value}")
            return Comparison(self._name(), "lacks" if negative else "holds", (value,))
        name = self._name()
        negative = self._took("not")
        if self._took("in"):
            return Comparison(name, "not in" if negative else "in", tuple(self._list(name)))
        if negative or self._next.kind != "op":
            self._expected(f"'in' after {name} not" if negative else f"a comparison of {name}")
        op = self._take().text
        if op in ("~", "!~"):
            value = self._value("a pattern in quotes", texts_only=True)
            return Comparison(name, op, (value._replace(pattern=re.compile(translate(value.folded))),))
        return Comparison(name, op, (self._value("a number, or a text in quotes,"),))

    def _list(self, name: str) -> Iterator[Value]:
        token = self._next
        if token.kind == "name" and not token.word:
            hint = f'a text stands in quotes, as "{name}" in {token.text[:40]}'
            raise ExpressionError(
                token.column, f"'(' after {name} in is expected, not {token.text[:40]}: {hint}"
            )
        self._need("(", f"{name} in")
        yield self._value("a number, or a text in quotes,")
        while not self._took(")"):
            if not self._took(","):
                self._expected("',' or ')'")
            yield self._value("a number, or a text in quotes,")

    def _name(self) -> str:
        token = self._next
        if token.kind != "name" or token.word:
            self._expected("the name of an attribute")
        if not ATTRIBUTE_NAME.fullmatch(token.text):
            raise ExpressionError(token.column, "the attribute's name is too long")
        return self._take().text.casefold()

    def _value(self, what: str, *, texts_only: bool = False) -> Value:
        token = self._next
        if token.kind != "text" and (texts_only or token.kind != "number"):
            self._expected(what)
        self._at += 1
        bare = token.kind == "number"
        text = token.text if bare else token.text[1:-1]
        return Value(text, bare, text.casefold(), number_of(text))
