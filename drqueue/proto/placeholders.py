"""Placeholders of commands and outputs: what they look like, and what becomes of them. PURE.

In argv, the shell string, the working directory and outputs:

    {frame} {frame:04d}   the first picture's number       {threads}  cores of the attempt
    {start} {end} {step}  of the chunk                     {attempt}  number of the try
    {frames}              all numbers of the chunk: `7`, `1-4`, or `1,3,5` where the step is not 1

Rules of a command: whatever else stands in braces is left as it is, for shells and JSON use them too;
`{{frame}}` is a literal `{frame}`. A number takes a width (`{start:4d}`, `{start:04d}`); any other format
is an error. Rules of an output: see `parse_output`. What a slave would stumble over is refused at submit.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

#: Placeholders that are numbers, and all that a command and an output know.
NUMBERS = ("frame", "start", "end", "step", "attempt", "threads")
NAMES = (*NUMBERS, "frames")
#: Digits that a frame number is padded to at most.
MAX_WIDTH = 99

_PLACE = re.compile(r"(\{)?\{(frames?|start|end|step|attempt|threads)(?::([^{}]*))?\}(?(1)\}|)")
_LITERAL = re.compile(r"\{((?:frames?|start|end|step|attempt|threads)(?::[^{}]*)?)\}")
_FORMAT = re.compile(r"0?\d{0,2}d?")
_OUTPUT_TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|%0?\d*d|%%|#+")
_OUTPUT_FORMAT = re.compile(r"(0?)(\d*)d?")


class PlaceholderError(ValueError):
    """A placeholder that cannot be filled in; the text is one sentence for its user."""


class Place(NamedTuple):
    """Where a frame's number stands in an output's name: `style` is "0", "" or "#"."""

    style: str
    width: int


# -- commands ---------------------------------------------------------------------------------------------


def fill(text: str, value: Callable[[str], int | str]) -> str:
    """A text with its placeholders replaced by their values; raises PlaceholderError."""
    if "{" not in text:
        return text
    return _PLACE.sub(lambda match: _filled(match, value), text)


def escaped(text: str) -> str:
    """A text that `fill` gives back as it is: every placeholder in it is made a literal one."""
    return _LITERAL.sub(r"{{\1}}", text) if "{" in text else text


def _filled(match: re.Match[str], value: Callable[[str], int | str]) -> str:
    doubled, name, form = match.groups()
    if doubled:
        return match[0][1:-1]
    if form is None:
        return str(value(name))
    if name not in NUMBERS:
        raise PlaceholderError(f"{match[0]:.80} takes no format; write {{{name}}}")
    if not _FORMAT.fullmatch(form):
        raise PlaceholderError(
            f"the format of {match[0]:.80} is not understood; write {{{name}}} or {{{name}:04d}}"
        )
    return format(value(name), form)


def check_text(text: str) -> str | None:
    """One sentence on a placeholder that a command cannot hold, or None."""
    try:
        fill(text, lambda name: 1)
    except PlaceholderError as error:
        return str(error)
    return None


# -- outputs ----------------------------------------------------------------------------------------------


def parse_output(pattern: str, fields: Mapping[str, object]) -> list[str | Place]:
    """An output as plain text and places for the frame's number; raises PlaceholderError.

    The number is `{frame}` or `{frame:04d}`, else `%04d` or `%d`, else the last run of `#` (as many
    digits). `{name}` is a field, `{{` a brace.
    """
    tokens = list(_OUTPUT_TOKEN.finditer(pattern))
    names = [token[0] for token in tokens]
    # Only one kind of place is one: with {frame} in it, % and # are plain characters.
    braces = any(name.startswith(("{frame}", "{frame:")) for name in names)
    percent = not braces and any(name[0] == "%" and name != "%%" for name in names)
    last_hash = max((token.start() for token in tokens if token[0][0] == "#"), default=-1)
    pieces: list[str | Place] = []
    position = 0
    for token in tokens:
        pieces.append(pattern[position : token.start()])
        position = token.end()
        text = token[0]
        if text[0] in "{}":
            pieces.append(_brace(pattern, text, fields))
        elif text[0] == "%" and percent:
            pieces.append("%" if text == "%%" else _place(pattern, text[1:]))
        elif text[0] == "#" and not braces and not percent and token.start() == last_hash:
            pieces.append(Place("#", min(len(text), MAX_WIDTH)))
        else:
            pieces.append(text)
    return [*pieces, pattern[position:]]


def check_output(pattern: str) -> str | None:
    """One sentence on an output that cannot be declared, or None."""
    try:
        parse_output(pattern, dict.fromkeys(NAMES[1:], 1))
    except PlaceholderError as error:
        return str(error)
    return None


def _brace(pattern: str, text: str, fields: Mapping[str, object]) -> str | Place:
    if text in ("{{", "}}"):
        return text[0]
    if len(text) == 1:
        raise PlaceholderError(
            f"output {pattern!r:.80} has a single {text}; write it twice where it is meant"
        )
    name, colon, form = text[1:-1].partition(":")
    if name == "frame":
        return _place(pattern, form)
    if name not in fields:
        known = ", ".join(sorted({"frame", *fields}))
        raise PlaceholderError(f"output {pattern!r:.80} has an unknown field {text:.40}; there are {known}")
    if colon:
        raise PlaceholderError(f"output {pattern!r:.80}: only {{frame}} takes a format")
    return str(fields[name])


def _place(pattern: str, form: str) -> Place:
    match = _OUTPUT_FORMAT.fullmatch(form)
    if match is None or len(match[2]) > 2:
        raise PlaceholderError(
            f"output {pattern!r:.80}: write the frame's number as {{frame}}, {{frame:04d}}, %04d or ####"
        )
    return Place(match[1], int(match[2] or 0))
