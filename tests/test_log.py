"""One line per event, whatever is in it."""

import io
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue import log


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """pytest has handlers of its own on the root logger, and wants them back."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("s1", "k=s1"),
        (3, "k=3"),
        (True, "k=true"),
        (None, "k=-"),
        ("-", 'k="-"'),
        ("", 'k=""'),
        (0.1 + 0.2, "k=0.3"),
        ("two words", 'k="two words"'),
        ("a=b", 'k="a=b"'),
        ('say "x"', 'k="say \\"x\\""'),
        ("C:\\x", 'k="C:\\\\x"'),
        ("a\nb\x1b[31m", 'k="a\\nb\\x1b[31m"'),
        ("\u2028\u202e\udcff", 'k="\\u2028\\u202e\\udcff"'),
        ("naïve", "k=naïve"),
        (Path("/a/b"), "k=/a/b"),
    ],
)
def test_values(value: object, expected: str) -> None:
    assert log.render("x", {"k": value}) == f"x {expected}"


@given(st.text(st.characters(), max_size=50), st.text(st.characters(), max_size=50))
def test_a_line_stays_a_line_and_a_value_a_value(text: str, value: str) -> None:
    line = log.render(text, {"key": value, "end": 1})
    assert line.isprintable()
    assert line.endswith(" end=1")
    quoted = re.search(r' key=(?:[^\s"=\\]+|"(?:[^"\\]|\\.)*") end=1\Z', line)
    assert quoted, line


def test_long_values_are_cut() -> None:
    assert len(log.render("x" * 10_000, {"k": "y" * 10_000})) < 2 * log.VALUE_MAX + 10


def test_lines_carry_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        out = io.StringIO()
        log.setup("info", out)
        log.event("slave linked", slave="s1", job=3)
        line = out.getvalue()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0200 info    slave linked slave=s1 job=3\n", line
    ), line


def test_levels() -> None:
    out = io.StringIO()
    log.setup("warning", out)
    log.debug("a")
    log.event("b")
    log.warning("c")
    log.error("d")
    assert [line.split()[1:] for line in out.getvalue().splitlines()] == [["warning", "c"], ["error", "d"]]


def test_journal_gets_priorities_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of a bug follows, each of its lines with the same priority, none with a forged one."""
    with open(tmp_path / "err", "w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log.setup("debug", stream)
        log.debug("a")
        log.event("b")
        log.warning("c", job=1)
        try:
            raise ValueError("one\r<0>two")
        except ValueError as error:
            log.error("d", exc=error)
        logging.getLogger("other.library").warning("e\n<0>f")
    lines = (tmp_path / "err").read_text().splitlines()
    assert lines[:4] == ["<7>a", "<6>b", "<4>c job=1", "<3>d"]
    assert "<3>  ValueError: one" in lines
    assert all(line.startswith("<3>  ") for line in lines[4:-1])
    assert lines[-1] == "<4>other.library: e\\n<0>f"


def test_a_stream_that_is_not_the_journal_gets_no_priorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JOURNAL_STREAM is inherited by whatever a service starts, also when its stderr goes elsewhere."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with open(tmp_path / "err", "w") as stream:
        assert not log.is_journal(stream)
    assert not log.is_journal(io.StringIO())


def test_a_stream_that_fails_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does it bring a traceback about logging itself."""
    log.setup("info", open("/dev/full", "w", buffering=1))  # noqa: SIM115 - it must stay open for the handler
    log.event("lost")
    assert capsys.readouterr() == ("", "")
    stream = logging.getLogger().handlers[0].stream  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space left"):
        stream.close()
