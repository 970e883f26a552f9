"""How the daemons log: one line per event on stderr, a few words and then key=value pairs.

    log.setup("info")
    log.event("slave linked", slave="s1", job=3)      ->  slave linked slave=s1 job=3

Rules of this file: standard library only. What a peer or a file says can never start a line of its own or
forge a key: control characters are escaped, doubtful values quoted, long ones cut. Only a bug has a
traceback; it follows its line on further lines, each with the same prefix.
"""

import contextlib
import logging
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from typing import Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")
VALUE_MAX: Final = 1000
"""Characters kept of one value, and of the words before the values."""

_logger: Final = logging.getLogger("drqueue")
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}


def setup(level: str = "info", stream: TextIO | None = None) -> None:
    """Send everything at or above `level` (one of LEVELS) to `stream` (default stderr); call it at start.

    Lines carry journald's priority (`<6>`) where the stream is the journal, else the local time.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JournalFormatter() if is_journal(stream) else _TimedFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A full disk under a redirected stderr must not fill it further with tracebacks about itself.
    logging.raiseExceptions = False


def debug(text: str, /, **fields: object) -> None:
    """Log what only somebody who hunts a bug wants to read."""
    _log(logging.DEBUG, text, fields)


def event(text: str, /, **fields: object) -> None:
    """Log what happened in the ordinary course of things."""
    _log(logging.INFO, text, fields)


def warning(text: str, /, **fields: object) -> None:
    """Log what somebody should look at some day."""
    _log(logging.WARNING, text, fields)


def error(text: str, /, *, exc: BaseException | None = None, **fields: object) -> None:
    """Log what somebody must look at; `exc` adds the traceback of a bug."""
    _log(logging.ERROR, text, fields, exc)


def render(text: str, fields: dict[str, object]) -> str:
    """One line: the words, then key=value pairs in the given order."""
    return " ".join([_escaped(_cut(text)), *(f"{key}={_value(value)}" for key, value in fields.items())])


def is_journal(stream: TextIO) -> bool:
    """Whether journald reads `stream`: JOURNAL_STREAM names this very file, not one that stderr once was."""
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def _log(level: int, text: str, fields: dict[str, object], exc: BaseException | None = None) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", render(text, fields), exc_info=exc, extra={"rendered": True})


def _value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _cut(f"{value:.6g}" if isinstance(value, float) else str(value))
    plain = text and text.isprintable() and not any(c in ' ="\\' for c in text) and text != "-"
    return text if plain else f'"{_escaped(text, quoted=True)}"'


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def _escaped(text: str, *, quoted: bool = False) -> str:
    if text.isprintable() and not quoted:
        return text
    return "".join(_escaped_char(c, quoted) for c in text)


def _escaped_char(char: str, quoted: bool) -> str:
    if char in _ESCAPES and (quoted or not char.isprintable()):
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Formatter(logging.Formatter, ABC):
    @abstractmethod
    def prefix(self, record: logging.LogRecord) -> str:
        """What each line of a record begins with."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if not getattr(record, "rendered", False):
            # Other libraries' records: their text is foreign, so it is treated like a peer's.
            message = f"{record.name}: {_escaped(_cut(message))}"
        lines = [message]
        if record.exc_info and record.exc_info[1] is not None:
            for part in traceback.format_exception(record.exc_info[1]):
                lines += ("  " + _escaped(line) for line in part.splitlines())
        prefix = self.prefix(record)
        return "\n".join(prefix + line for line in lines)


class _JournalFormatter(_Formatter):
    def prefix(self, record: logging.LogRecord) -> str:
        level = record.levelno
        if level >= logging.ERROR:
            return "<3>"
        return "<4>" if level >= logging.WARNING else "<6>" if level >= logging.INFO else "<7>"


class _TimedFormatter(_Formatter):
    def prefix(self, record: logging.LogRecord) -> str:
        local = time.localtime(record.created)
        # Cut, not rounded: .9996 of a second is not yet the next one.
        milliseconds = int(record.created % 1 * 1000)
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{milliseconds:03d}{time.strftime('%z', local)}"
        return f"{moment} {record.levelname.lower():<7} "
