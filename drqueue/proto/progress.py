"""The pattern by which a user's command tells its progress: what it must be like. PURE.

Rules: a pattern cannot hold up who uses it: what could take exponential time is refused when given.
"""

import re
import warnings
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

#: A user's pattern: characters, open-ended repeats, and ways that its other parts can match.
MAX_PATTERN = 200
MAX_REPEATS = 5
MAX_WAYS = 256
#: A repeat of more than this counts as open-ended.
_SMALL_REPEAT = 16
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)


def check_progress_pattern(pattern: str) -> str | None:
    """One sentence on what is wrong with a user's pattern, None where it can be used.

    Its first group is a percentage; with a second group it is "done" of "all".
    """
    if len(pattern) > MAX_PATTERN:
        return f"the progress pattern has {len(pattern)} characters, at most {MAX_PATTERN} are allowed"
    try:
        groups = compiled(pattern).groups
        repeats, ways = pattern_cost(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"the progress pattern is no regular expression: {error}"
    except _NestedError:
        return (
            "the progress pattern repeats what itself repeats or branches, or refers back: it may never end"
        )
    if groups not in (1, 2):
        return f"the progress pattern needs one group (percent) or two (done, all), it has {groups}"
    if repeats > MAX_REPEATS or ways > MAX_WAYS:
        return f"the progress pattern matches in too many ways: use at most {MAX_REPEATS} * or +, few ? or |"
    return None


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, ready for use; raises re.error, OverflowError or RecursionError."""
    with _unwarned():
        return re.compile(pattern)


def _unwarned() -> "warnings.catch_warnings[None]":
    """Python's later versions may read some sets otherwise: no matter for anybody's stderr."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def pattern_cost(pattern: str) -> tuple[int, int]:
    """Open-ended repeats of a pattern, and the number of ways that all else in it can match.

    Raises re.error, OverflowError or RecursionError, and an error of this file where it may never end.
    """
    with _unwarned():
        parsed = _parser.parse(pattern)
    return _cost(parsed, inside=False)


class _NestedError(Exception):
    """A pattern whose matching could take exponential time."""


def _cost(parsed: Any, inside: bool) -> tuple[int, int]:
    """Open-ended repeats of a parsed pattern, and the number of ways that all else in it can match.

    `inside` says that it is itself repeated; raises _NestedError where it then leaves a choice.
    """
    repeats, ways = 0, 1
    for operation, argument in parsed:
        bodies: list[Any] = []
        repeated = inside
        if operation in _REPEATS:
            least, most, body = argument
            if inside and least != most:
                raise _NestedError
            if most > _SMALL_REPEAT and least != most:
                repeats += 1
            else:
                ways *= most - least + 1
            bodies, repeated = [body], inside or most > 1
        elif operation is _constants.BRANCH:
            bodies = argument[1]
            ways *= len(bodies)
        elif operation in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
            raise _NestedError
        elif isinstance(argument, tuple) and argument and isinstance(argument[-1], _parser.SubPattern):
            bodies = [argument[-1]]
        elif isinstance(argument, _parser.SubPattern):
            bodies = [argument]
        if inside and len(bodies) > 1:
            raise _NestedError
        for body in bodies:
            more_repeats, more_ways = _cost(body, repeated)
            repeats += more_repeats
            ways = min(ways * more_ways, MAX_WAYS + 1)
    return repeats, ways
