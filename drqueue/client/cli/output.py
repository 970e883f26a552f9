"""How answers are printed: tables for people, JSON for programs.

Rules: a table is as wide as the terminal (80 where there is none); texts that may be long are cut with an
ellipsis, numbers never; in a pipe a
reason is never cut; colours only on a terminal and without NO_COLOR. What others typed (names,
activities) cannot reach the terminal with control characters in it.
"""

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import msgspec

if TYPE_CHECKING:
    from drqueue.proto.views import JobView

_STYLES = {
    "dim": "2",
    "bold": "1",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
STATE_STYLES = {
    "DONE": "green",
    "FINISHED": "green",
    "RUNNING": "cyan",
    "ACTIVE": "cyan",
    "ASSIGNED": "blue",
    "FAILED": "red",
    "CANCELLED": "red",
    "STOPPED": "yellow",
    "BLOCKED": "yellow",
    "busy": "cyan",
    "idle": "green",
    "disabled": "yellow",
    "sick": "red",
    "unlinked": "red",
    "lost": "red",
}


#: Where a text was cut to fit on a few lines.
_MORE = "… (all of it: --json)"


def clean(text: str) -> str:
    """A text without anything that could steer a terminal; such characters are shown escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def cells(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def cut(text: str, room: int) -> str:
    """A text in at most `room` columns, an ellipsis in place of what does not fit."""
    if cells(text) <= room:
        return text
    kept, used = [], 0
    for char in text:
        wide = cells(char)
        if used + wide > room - 1:
            break
        kept.append(char)
        used += wide
    return "".join(kept) + "…" if room > 0 else ""


def coloured(stream: TextIO | None = None) -> bool:
    """Whether colours are welcome on this stream."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str) -> str:
    """A text in a style, where colours are welcome."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style in _STYLES and coloured() else text


def screen_width() -> int:
    """Columns to fill."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


class Column(NamedTuple):
    """A table's column; one with `least` gives way, down to that many columns, where room is short.

    `whole`: it is never cut where there is no terminal; for a table's last column.
    """

    title: str
    right: bool = False
    least: int = 0
    whole: bool = False


class Cell(NamedTuple):
    """A table's cell in a style. `below`: what does not fit stands on lines of its own below the row.

    `most`: in `fields`, no more lines than that are shown of it, with its own line breaks.
    """

    text: str
    style: str = ""
    below: bool = False
    most: int = 0


class Table:
    """Rows under a line of titles. Widths are those of the first batch of rows, for lists may be endless."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._widths: list[int] = []
        self._below = ""

    def lines(self, rows: Iterable[Sequence[str | Cell]]) -> list[str]:
        """The rows as lines, the titles first where this is the first batch."""
        made = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        shown = [[cell._replace(text=clean(cell.text)) for cell in row] for row in made]
        lines = []
        if not self._widths:
            self._measure(shown)
            titles = [Cell(column.title, "dim") for column in self._columns]
            lines.append(self._line(titles))
        return lines + [line for row in shown for line in (self._line(row), *self._rest(row))]

    def _measure(self, rows: Sequence[Sequence[Cell]]) -> None:
        self._widths = [
            max([cells(column.title), *(cells(row[number].text) for row in rows)])
            for number, column in enumerate(self._columns)
        ]
        if self._columns[-1].whole and not sys.stdout.isatty():
            self._widths[-1] = max(self._columns[-1].least, cells(self._columns[-1].title))
        excess = sum(self._widths) + 2 * (len(self._widths) - 1) - screen_width()
        while excess > 0:
            # The widest that may give way gives way first.
            able = [
                n for n, column in enumerate(self._columns) if column.least and self._widths[n] > column.least
            ]
            if not able:
                return
            widest = max(able, key=lambda number: self._widths[number])
            self._widths[widest] -= 1
            excess -= 1

    def _line(self, row: Sequence[Cell]) -> str:
        parts = []
        for cell, column, width in zip(row, self._columns, self._widths, strict=True):
            text = cell.text if column.whole and not sys.stdout.isatty() else self._fit(cell, column, width)
            space = " " * max(0, width - cells(text))
            parts.append(space + paint(text, cell.style) if column.right else paint(text, cell.style) + space)
        return "  ".join(parts).rstrip()

    def _fit(self, cell: Cell, column: Column, width: int) -> str:
        if cell.below and cells(cell.text) > width:
            return cut("as above" if cell.text == self._below else "see below", width)
        return cut(cell.text, width) if column.least else cell.text

    def _rest(self, row: Sequence[Cell]) -> list[str]:
        """What of a row stands below it; once for rows that follow each other with the same."""
        for cell, column, width in zip(row, self._columns, self._widths, strict=True):
            if cell.below and cells(cell.text) > width and not (column.whole and not sys.stdout.isatty()):
                if cell.text == self._below:
                    return []
                self._below = cell.text
                return [paint(line, cell.style) for line in wrapped(cell.text, "    ")]
        self._below = ""
        return []


def wrapped(text: str, indent: str) -> list[str]:
    """A text in lines that fit the screen, each after `indent`; words too long for a line are broken."""
    room, lines, line = screen_width() - len(indent), [], ""
    for word in clean(text).split():
        if line and cells(line) + 1 + cells(word) > room:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while cells(line) > room:
            head = cut(line, room + 1)[:-1] or line[:1]
            lines.append(head)
            line = line[len(head) :]
    return [indent + each for each in (*lines, line) if each]


def excerpt(text: str, room: int, most: int) -> list[str]:
    """The first `most` lines of at most `room` columns of a text; the last one says where more was.

    What fits on them and is a single line is left in one piece where there is no terminal.
    """
    own = [clean(line.expandtabs(4)) for line in text.splitlines() if line.strip()]
    if len(own) == 1 and cells(own[0]) <= room * most and not sys.stdout.isatty():
        return own
    lines: list[str] = []
    for line in own[: most + 1]:
        while cells(line) > room and len(lines) <= most:
            head = cut(line, room + 1)[:-1] or line[:1]
            if line[len(head)] != " " and head.rfind(" ") > room // 2:
                head = head[: head.rfind(" ")]
            lines.append(head)
            line = line[len(head) :].removeprefix(" ")
        lines.append(line)
    if len(lines) > most:
        lines[most - 1 :] = [cut(lines[most - 1], room - len(_MORE)).removesuffix("…") + _MORE]
    return lines


def state(name: str, *, bad: bool = False) -> Cell:
    """A state in its colour; `bad`: there is something about it that should worry."""
    return Cell(name, "red" if bad else STATE_STYLES.get(name, ""))


def job_state(view: "JobView") -> Cell:
    """A job's state; with an exclamation mark, in red, where it ended without being done."""
    bad = view.state == "FINISHED" and view.counts.done < view.counts.total
    return state("FINISHED!" if bad else view.state, bad=bad)


def fields(pairs: Iterable[tuple[str, str | Cell]]) -> list[str]:
    """`name  value` lines; those without a value are left out. `below`: wrapped on a terminal."""
    kept = [(name, cell if isinstance(cell, Cell) else Cell(cell)) for name, cell in pairs]
    kept = [(name, cell) for name, cell in kept if cell.text]
    width = max((len(name) for name, _ in kept), default=0)
    lines = []
    for name, cell in kept:
        texts = [clean(cell.text)]
        if cell.below and sys.stdout.isatty():
            indent = " " * (width + 2)
            texts = [line[len(indent) :] for line in wrapped(cell.text, indent)]
        if cell.most:
            texts = excerpt(cell.text, screen_width() - width - 2, cell.most)
        for number, text in enumerate(texts):
            label = "" if number else name
            lines.append(f"{paint(label.ljust(width), 'dim')}  {paint(text, cell.style)}")
    return lines


def show(lines: Iterable[str]) -> None:
    """Print lines on stdout."""
    for line in lines:
        print(line)


# -- quantities -------------------------------------------------------------------------------------------


def bar(done: float, width: int = 8) -> str:
    """A bar of progress from 0 to 1."""
    eighths = int(max(0.0, min(done, 1.0)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width, "░")


def part(view: "JobView") -> float:
    """How much of a job is done, from 0 to 1; 1 only for what is finished with every frame done."""
    counts = view.counts
    done = counts.done / counts.total if counts.total else 0.0
    if view.state == "FINISHED":
        return done
    # A job's own progress counts frames that ended anyhow, and parts of those that run.
    ended_badly = (counts.failed + counts.cancelled) / counts.total if counts.total else 0.0
    return max(0.0, min(max(done, view.progress - ended_badly), 0.999))


def time_left(view: "JobView") -> str:
    """The time until a job may be finished, "-" where nothing can be said."""
    if view.state == "FINISHED" or not view.eta_at:
        return "-"
    return duration(max(0.0, view.eta_at - time.time()))


def percent(done: float) -> str:
    """Whole percents; 100 only for what is over."""
    return f"{int(max(0.0, min(done, 1.0)) * 100)}%"


def duration(seconds: float) -> str:
    """A length of time in at most six columns: 4.2s, 42s, 3m05s, 5h04m, 3d02h."""
    if seconds < 0.05:
        return "0s"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    for small, large, signs in ((60, 60, "ms"), (3600, 24, "hm"), (86400, 100, "dh")):
        if whole < small * large:
            rest = whole % small // {60: 1, 3600: 60, 86400: 3600}[small]
            return f"{whole // small}{signs[0]}{rest:02d}{signs[1]}"
    return f"{whole // 86400}d"


def moment(at: float) -> str:
    """A time of day, with its date where that is not today; "" for 0."""
    if not at:
        return ""
    then, now = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)


def memory(mb: float) -> str:
    """MiB, or GiB where that reads better."""
    return f"{mb / 1024:.1f}G" if mb >= 10_000 else f"{mb:.0f}M"


# -- JSON -------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A view as plain dicts and lists, every field present; request numbers are nobody's business."""
    if isinstance(value, msgspec.Struct):
        return {
            field.name: plain(getattr(value, field.name))
            for field in msgspec.structs.fields(type(value))
            if field.name != "rq"
        }
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def json_text(value: Any) -> str:
    """One value as JSON for people and programs alike."""
    return msgspec.json.format(msgspec.json.encode(plain(value)), indent=2).decode()


def show_json(value: Any) -> None:
    """Print one value as JSON."""
    print(json_text(value))


def json_line(value: Any) -> str:
    """One value as JSON in one line."""
    return msgspec.json.encode(plain(value)).decode()
