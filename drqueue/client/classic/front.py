"""The front that the eight tools share: options as getopt reads them, numbers, and one way to fail.

Rules: an option is one letter behind a dash; whatever goes wrong is one sentence on stderr, begun with the
tool's name, and exit status 1; everything else is status 0. Nothing of the binding is imported before it is
known that a farm is to be asked, so that `-h`, `-v` and wrong usage are answered at once.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from getopt import GetoptError, gnu_getopt
from typing import NamedTuple

OK, FAILED = 0, 1
ID_MAX = 2**32 - 1
FRAME_MIN, FRAME_MAX = -(2**31), 2**32 - 1


class Refused(Exception):  # noqa: N818  (reads as what it says)
    """What the tool will not do, or could not; its text is a sentence for stderr."""


class Given(NamedTuple):
    """A command line, read: each letter's value ("" where it takes none), and the words without a dash."""

    letters: Mapping[str, str]
    words: Sequence[str]

    def one_of(self, letters: str) -> str:
        """The only letter of these that was given, "" where none was; Refused for two."""
        found = [letter for letter in self.letters if letter in letters]
        if len(found) > 1:
            raise Refused(f"-{found[0]} and -{found[1]} do not go together")
        return found[0] if found else ""

    def number(self, letter: str, what: str) -> int:
        """The id behind a letter; Refused where it is missing or none."""
        text = self._text(letter, what)
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > ID_MAX:
            raise Refused(f"-{letter} {_shown(text)}: {what} is a number from 0 to {ID_MAX}")
        return int(text)

    def frame(self) -> int:
        """The frame's number behind -f; Refused where it is missing or none."""
        text = self._text("f", "the frame")
        if not re.fullmatch(r"-?[0-9]{1,10}", text) or not FRAME_MIN <= int(text) <= FRAME_MAX:
            raise Refused(f"-f {_shown(text)}: the frame is a number from {FRAME_MIN} to {FRAME_MAX}")
        return int(text)

    def _text(self, letter: str, what: str) -> str:
        if letter not in self.letters:
            raise Refused(f"-{letter} is missing: {what}")
        return self.letters[letter]


class Tool(NamedTuple):
    """A tool: its name, its usage, its letters (those with ":" take a value), what it does."""

    name: str
    usage: str
    letters: str
    run: Callable[[Given], None]
    files: int = 0
    """How many words without a dash it takes at most."""


def call(tool: Tool, summary: str, arguments: Sequence[str]) -> int:
    """Run a tool; returns its exit status. `summary` is the line about it in its help."""
    if not arguments:
        print(tool.usage, file=sys.stderr)
        return FAILED
    try:
        given = _read(tool, arguments)
        if given.letters.keys() & {"h", "help"}:
            print(f"{summary}\n\n{tool.usage}")
        elif given.letters.keys() & {"v", "version"}:
            from drqueue import __version__

            print(f"{tool.name}: DrQueue {__version__}")
        else:
            tool.run(given)
        sys.stdout.flush()
    except Refused as error:
        sys.stdout.flush()  # what the tool said it would do comes before how that failed
        print(f"{tool.name}: {printable(str(error))}", file=sys.stderr)
        return FAILED
    return OK


def _read(tool: Tool, arguments: Sequence[str]) -> Given:
    try:
        pairs, words = gnu_getopt(list(arguments), tool.letters + "hv", ["help", "version"])
    except GetoptError as error:
        raise Refused(f"{error.msg} (see {tool.name} -h)") from None
    if len(words) > tool.files:
        raise Refused(f"{_shown(words[tool.files])} is one word too many (see {tool.name} -h)")
    return Given({letter.lstrip("-"): value for letter, value in pairs}, words)


def say(text: str) -> None:
    """A line of the answer, on stdout, shown before the farm is asked for anything more."""
    print(printable(text), flush=True)


def printable(text: str) -> str:
    """A text in which nothing but tabs can steer a terminal: names come from others."""
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
