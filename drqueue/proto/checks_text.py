"""What names, texts and amounts must be like, in sentences; what the other checks are made of. PURE."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

#: What a pool may be called: several stand in one environment variable.
POOL_NAME: Final = re.compile(r"[^\s,=:/]{1,63}")
#: What a tag or an amount may be called: they stand in lists, and before = and a number.
WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,62}")
WORD_SAYS: Final = "1 to 63 letters, digits and . _ + -"
#: The most of anything that is counted or measured: more is a mistake.
MAX_AMOUNT: Final = 1_000_000_000
MAX_CORES: Final = 100_000


def text_problems(what: str, text: str, *, newlines: bool = False) -> Iterable[str]:
    """What no text may hold."""
    if "\x00" in text:
        yield f"{what} holds a NUL character"
    elif any("\ud800" <= char <= "\udfff" for char in text):
        yield f"{what} is not valid UTF-8 text"
    elif not newlines and any(ord(char) < 32 or ord(char) == 127 for char in text):
        yield f"{what} holds a control character"


def pool_problems(name: str) -> Iterator[str]:
    """What is wrong with a pool's name."""
    if not POOL_NAME.fullmatch(name):
        yield f"no pool is called {shown(name)}: 1 to 63 characters, no blanks and none of , = : /"


def word_problems(what: str, name: str) -> Iterator[str]:
    """What is wrong with the name of a tag or an amount."""
    if not WORD.fullmatch(name):
        yield f"{what} {shown(name)}: a name has {WORD_SAYS}"


def party_problems(what: str, name: str) -> Iterator[str]:
    """What is wrong with the name of a job's owner or project, which may be empty."""
    yield from text_problems(what, name)
    if len(name) > 127:
        yield f"{what} has {len(name)} characters, 127 are allowed"
    if name == "*":
        yield f"{what} may not be called *, which means each one"
    if name != name.strip():
        yield f"{what} {shown(name)} begins or ends with a blank"


def amount_problems(what: str, amount: float, most: int = MAX_AMOUNT) -> Iterator[str]:
    """What is wrong with an amount of something: it is absurd, or finer than the farm counts."""
    if not 0 <= amount <= most:
        yield f"{what}: {amount:,.15g} is not within 0 and {most:,}"
    elif abs(amount * 1000 - round(amount * 1000)) > 1e-6 * max(1, amount):
        yield f"{what}: {amount:,.15g} is finer than a thousandth"


def repeated(names: Sequence[str]) -> str | None:
    """The first name that stands there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def shown(text: str) -> str:
    """A text as it is quoted in a sentence."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
