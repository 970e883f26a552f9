"""How far an attempt is, read from its output: what the renderers print, and conventions for scripts.

Rules: output is split on \\r and \\n alike; a line is looked at only up to MAX_LINE bytes and never kept
longer, whatever is printed; a pattern from a user cannot hold up the daemon: what could take
exponential time is refused when given, and one that turns out slow is dropped.
"""

import math
import re
import time
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

MAX_LINE = 2048
MAX_ACTIVITY = 200
#: A user's pattern: characters, open-ended repeats, and ways that its other parts can match.
MAX_PATTERN = 200
MAX_REPEATS = 5
MAX_WAYS = 256
#: CPU seconds that a user's pattern may take for one line before it is dropped.
MAX_PATTERN_S = 0.05
#: Steps that matching one line may take at worst (under a second); the line is shortened to that.
_MAX_STEPS = 2e7
#: A repeat of more than this counts as open-ended.
_SMALL_REPEAT = 16

_NUMBER = rb"(\d{1,9}(?:\.\d{1,9})?)"
_PERCENT = re.compile(rb"(?i)\bprogress:\s{0,9}" + _NUMBER + rb"\s?%")
_OPENJD = re.compile(rb"openjd_progress:\s{0,9}" + _NUMBER)
_ACTIVITY = re.compile(rb"\s{0,9}(?:openjd_status|openjd_fail|ACTIVITY):\s{0,9}(.*)")
_CYCLES = re.compile(rb"\| Sample (\d{1,9})/(\d{1,9})")
_EEVEE = re.compile(rb"Rendering (\d{1,9}) / (\d{1,9}) samples")
_SAVED = re.compile(rb"(?:^|\| )Saved: '")
_POV_PIXELS = re.compile(rb"Rendered (\d{1,18}) of (\d{1,18}) pixels")
_POV_PICTURE = re.compile(rb"Rendering frame (\d{1,9}) of (\d{1,9})")
_FFMPEG = re.compile(rb"frame=\s{0,9}(\d{1,9})")
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)


def check_progress_pattern(pattern: str) -> str | None:
    """One sentence on what is wrong with a user's pattern, None where it can be used.

    Its first group is a percentage; with a second group it is "done" of "all".
    """
    if len(pattern) > MAX_PATTERN:
        return f"the progress pattern has {len(pattern)} characters, at most {MAX_PATTERN} are allowed"
    try:
        groups = re.compile(pattern).groups
        repeats, ways = _cost(_parser.parse(pattern), inside=False)
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


class ProgressParser:
    """Takes an attempt's output piece by piece; `progress` is 0 to 1, None while nothing was recognised.

    `pictures` is how many pictures the attempt makes (the chunk's members): renderers that count
    from 0 to all for each of them advance by that part. `activity` is the last line that said so.
    """

    def __init__(self, pictures: int = 1, pattern: str = "") -> None:
        """Raises ValueError for a pattern that `check_progress_pattern` refuses."""
        self.progress: float | None = None
        self.activity = ""
        self._pictures = max(1, pictures)
        self._saved = 0
        self._pov = (1, 1)
        self._line = bytearray()
        self._pattern: re.Pattern[str] | None = None
        if pattern:
            wrong = check_progress_pattern(pattern)
            if wrong is not None:
                raise ValueError(wrong)
            self._pattern = re.compile(pattern)
            self._pattern_line = _line_limit(*_cost(_parser.parse(pattern), inside=False))

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of output; whether progress or activity changed."""
        before = (self.progress, self.activity)
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._keep(line)
            if self._line:
                self._take(bytes(self._line))
                self._line.clear()
        self._keep(rest)
        return (self.progress, self.activity) != before

    def _keep(self, piece: bytes) -> None:
        self._line += piece[: MAX_LINE - len(self._line)]

    def _take(self, line: bytes) -> None:
        if self._pattern is not None:
            self._take_pattern(self._pattern, line)
        if b":" in line:
            self._take_convention(line)
        if b"Sample" in line or b"samples" in line or b"Saved: '" in line:
            self._take_blender(line)
        elif line.startswith(b"Render"):
            self._take_pov(line)
        elif self._pictures > 1 and (match := _FFMPEG.match(line)):
            self._set(int(match[1]) / self._pictures)

    def _take_convention(self, line: bytes) -> None:
        if match := _PERCENT.search(line) or _OPENJD.match(line):
            self._set(float(match[1]) / 100)
        elif match := _ACTIVITY.match(line):
            text = match[1].decode("utf-8", "replace")
            self.activity = "".join(char for char in text if char.isprintable())[:MAX_ACTIVITY].strip()

    def _take_blender(self, line: bytes) -> None:
        if match := _CYCLES.search(line) or _EEVEE.search(line):
            if int(match[2]) > 0:
                self._set((self._saved + min(1.0, int(match[1]) / int(match[2]))) / self._pictures)
        elif _SAVED.search(line):
            self._saved += 1
            self._set(self._saved / self._pictures)

    def _take_pov(self, line: bytes) -> None:
        if match := _POV_PICTURE.match(line):
            self._pov = (int(match[1]), int(match[2]))
        elif (match := _POV_PIXELS.match(line)) and int(match[2]) > 0:
            number, count = self._pov
            self._set((max(0, number - 1) + int(match[1]) / int(match[2])) / max(1, count))

    def _take_pattern(self, pattern: re.Pattern[str], line: bytes) -> None:
        text = line.decode("utf-8", "replace")[: self._pattern_line]
        began = time.thread_time()
        match = pattern.search(text)
        if time.thread_time() - began > MAX_PATTERN_S:
            self._pattern = None
        if match is None:
            return
        try:
            done, whole = float(match[1]), float(match[2]) if pattern.groups == 2 else 100.0
            self._set(done / whole)
        except (TypeError, ValueError, ZeroDivisionError):
            return  # a group that took no part, or no number: this line says nothing

    def _set(self, progress: float) -> None:
        if progress == progress:  # not NaN
            self.progress = min(1.0, max(0.0, progress))


class _NestedError(Exception):
    """A pattern whose matching could take exponential time."""


def _line_limit(repeats: int, ways: int) -> int:
    """Characters of a line that a pattern may see: with n open-ended repeats, matching takes about
    length^(n+1) / (n+1)! steps at worst."""
    return min(MAX_LINE, int((_MAX_STEPS / ways * math.factorial(repeats + 1)) ** (1 / (repeats + 1))))


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
