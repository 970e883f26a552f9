"""How far an attempt is, read from its output: what the renderers print, and conventions for scripts.

Rules: output is split on \\r and \\n alike; a line is looked at only up to MAX_LINE bytes and never kept
longer, whatever is printed; a pattern from a user cannot hold up the daemon: what could take
exponential time is refused when given, and one that turns out slow is dropped.
"""

import math
import re
import time

from drqueue.proto.progress import check_progress_pattern, compiled, pattern_cost

MAX_LINE = 2048
MAX_ACTIVITY = 200
#: CPU seconds that a user's pattern may take for one line before it is dropped.
MAX_PATTERN_S = 0.05
#: Steps that matching one line may take at worst (under a second); the line is shortened to that.
_MAX_STEPS = 2e7

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
            self._pattern = compiled(pattern)
            self._pattern_line = _line_limit(*pattern_cost(pattern))

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


def _line_limit(repeats: int, ways: int) -> int:
    """Characters of a line that a pattern may see: with n open-ended repeats, matching takes about
    length^(n+1) / (n+1)! steps at worst."""
    return min(MAX_LINE, int((_MAX_STEPS / ways * math.factorial(repeats + 1)) ** (1 / (repeats + 1))))
