"""The words of a kind's command: templates, and what they become in argv, in a shell and in a script. PURE.

A template is a tuple of words; `When` holds words for one case only. In a word `{name}` is a parameter's
value, or one of the frame's numbers (VARS), which takes a width (`{frame:04d}`). In `{name:#}`, a path, the
last run of `#` becomes the frame's number. Rule: whatever a user gave is text and nothing else, neither a
placeholder nor anything that a shell understands.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from string import Formatter
from typing import NamedTuple, Union

from drqueue.client.kinds.params import KindError, Value, Values, as_text
from drqueue.proto.placeholders import PlaceholderError, escaped, fill

#: What a word may hold besides parameters. `frame` is the one of a call; `start` to `end` are all its frames,
#: `step` is how far they are apart; `frames` and `dots` are lists of them (1-4 and 1..4). `part` of `parts`
#: is a strip of a picture, from the top; `low` and `high` are its rows, from the bottom.
VARS = ("frame", "start", "end", "step", "frames", "dots", "threads", "part", "parts", "low", "high")

_HASHES = re.compile(r"#+(?=[^#/]*\Z)")
_WIDTH = re.compile(r"0(\d+)d\Z")
_PLAIN = re.compile(r"[\w@%+=:,./-]+\Z", re.ASCII)


class Var(NamedTuple):
    """One of the frame's numbers, with at least `width` characters."""

    name: str
    width: int = 0


class Ref(NamedTuple):
    """A parameter's value; `numbered`: its hash signs are the frame's number."""

    name: str
    text: str
    numbered: bool = False


class When(NamedTuple):
    """Words for where a parameter is given (`name`), is not (`!name`) or is something (`name=value`)."""

    test: str
    words: tuple[Union[str, "When"], ...]


Piece = str | Var | Ref
Word = tuple[Piece, ...]
Template = Sequence[str | When]


def when(test: str, *words: str | When) -> When:
    """Words for one case only; see `When`."""
    return When(test, words)


def holds(test: str, values: Values) -> bool:
    """Whether a case applies; a switch that is off is not given."""
    name, equals, wanted = test.lstrip("!").partition("=")
    value = values.get(name, "")
    found = as_text(value) == wanted if equals else value not in ("", False)
    return found != test.startswith("!")


def words_of(template: Template, values: Values) -> list[Word]:
    """The words for these values, parameters still named in them."""
    words: list[Word] = []
    for item in template:
        if isinstance(item, When):
            if holds(item.test, values):
                words += words_of(item.words, values)
        else:
            words.append(tuple(_pieces(item, values)))
    return words


def _pieces(word: str, values: Values) -> Iterable[Piece]:
    for literal, name, form, _ in Formatter().parse(word):
        if literal:
            yield literal
        if name is None:
            continue
        if name in VARS:
            width = _WIDTH.match(form or "")
            yield Var(name, int(width[1]) if width else 0)
        else:
            yield Ref(name, as_text(values.get(name, "")), form == "#")


def numbered(text: str, var: str = "frame") -> tuple[str | Var, ...]:
    """A path's text, the last run of hash signs in its file's name become the frame's number."""
    match = _HASHES.search(text)
    if match is None:
        return (text,)
    return text[: match.start()], Var(var, len(match[0])), text[match.end() :]


def has_number(text: str) -> bool:
    """Whether a path's file name has hash signs."""
    return _HASHES.search(text) is not None


def plain(word: Iterable[Piece]) -> list[str | Var]:
    """A word's pieces, parameters become text."""
    pieces: list[str | Var] = []
    for piece in word:
        if isinstance(piece, Ref):
            parts: Word = numbered(piece.text) if piece.numbered else (piece.text,)
        else:
            parts = (piece,)
        for part in parts:
            if isinstance(part, str) and pieces and isinstance(pieces[-1], str):
                pieces[-1] += part
            elif not isinstance(part, Ref):
                pieces.append(part)
    return pieces


# -- argv -------------------------------------------------------------------------------------------------


def as_argv(words: Iterable[Word]) -> tuple[str, ...]:
    """The words for `LayerSpec.argv`; raises KindError for what no placeholder can say."""
    return tuple([_argument(plain(word)) for word in words])


def _argument(pieces: list[str | Var]) -> str:
    made = "".join(escaped(piece) if isinstance(piece, str) else _placeholder(piece) for piece in pieces)
    # Braces of a user's on both sides of the number would hide it.
    wanted = "".join(piece if isinstance(piece, str) else f"{7:0{piece.width}d}" for piece in pieces)
    try:
        right = fill(made, lambda name: 7) == wanted
    except PlaceholderError:
        right = False
    if not right:
        shown = "".join(piece if isinstance(piece, str) else "#" * max(1, piece.width) for piece in pieces)
        raise KindError(f"{shown!r} cannot be used: the frame's number may not stand in braces")
    return made


def _placeholder(var: Var) -> str:
    return f"{{{var.name}:0{var.width}d}}" if var.width else f"{{{var.name}}}"


# -- shell ------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A text as one word of a shell, and no placeholder in it."""
    return escaped(text if _PLAIN.match(text) else shlex.quote(text))


def as_shell(words: Iterable[Word]) -> str:
    """The words as a simple command of a shell in which `$frame` and so on are set."""
    return " ".join(shell_word(plain(word)) for word in words)


def shell_word(pieces: Iterable[str | Var]) -> str:
    """One word of a shell."""
    parts = []
    for piece in plain(pieces):
        if isinstance(piece, str):
            parts.append(quoted(piece) if piece else "")
        elif piece.name == "threads":
            parts.append("{threads}")
        elif piece.width:
            parts.append(f'"$(printf %0{piece.width}d "${piece.name}")"')
        else:
            parts.append(f'"${piece.name}"')
    return "".join(parts) or "''"


# -- Python -----------------------------------------------------------------------------------------------


def as_python(words: Iterable[Word]) -> str:
    """The words as a Python list, parameters as the names of their lines in a script (upper case)."""
    return "[\n" + "".join(f"        {_expression(word)},\n" for word in words) + "    ]"


def _expression(word: Word) -> str:
    parts = []
    for piece in word:
        if isinstance(piece, str):
            parts.append(repr(piece))
        elif isinstance(piece, Ref):
            name = piece.name.upper()
            parts.append(f"numbered({name}, frame)" if piece.numbered else f"str({name})")
        elif piece.width:
            parts.append(f"padded({piece.name}, {piece.width})")
        else:
            parts.append(f"str({piece.name})")
    return " + ".join(parts) or "''"


# -- outputs ----------------------------------------------------------------------------------------------


def as_output(pieces: Iterable[str | Var]) -> tuple[str, ...]:
    """The declared output that these pieces of a path are; none where it cannot be said.

    Without a number `#` and `%` would be taken for one.
    """
    pieces = list(pieces)
    text = "".join(piece.replace("{", "{{").replace("}", "}}") for piece in pieces if isinstance(piece, str))
    if all(isinstance(piece, str) for piece in pieces):
        return () if re.search(r"[#%]", text) else (text,)
    made = [
        piece.replace("{", "{{").replace("}", "}}")
        if isinstance(piece, str)
        else (f"{{frame:0{piece.width}d}}" if piece.width else "{frame}")
        for piece in pieces
    ]
    return ("".join(made),)


def set_values(values: Values, **more: Value) -> dict[str, Value]:
    """The values with more of them set; those that are "" are removed."""
    return {name: value for name, value in {**values, **more}.items() if value != ""}
